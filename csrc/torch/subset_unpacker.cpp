#include "torch/subset_unpacker.h"

#include <algorithm>
#include <string>
#include <utility>

#include "torch/checks.h"
#include "torch/overlap.h"

namespace momentum::ops {
namespace {

constexpr double kUnbounded = 1e300, kMostSteps = 1e9;
constexpr int64_t kMostUnits = int64_t(1) << 35;  // block * rest in SubsetShares stays below 2^63

// Turns arguments into a SubsetCall, refusing whatever a kernel must not see.
class SubsetUnpacker {
 public:
  SubsetUnpacker(const SubsetDescription& rule, const char* op, const SubsetArguments& arguments, Device device)
      : rule_(rule),
        a_(arguments),
        check_(op, device),
        count_(arguments.params.size()),
        parts_(count_ == 0 ? nullptr : arguments.params[0].data) {}

  SubsetCall unpack(const TensorLoop& loop) {
    lengths();
    options();
    hypers();
    call_.tensors.resize(count_);
    loop(count_, [this](size_t begin, size_t end) { tensors(begin, end); });
    OverlapCheck others = parts_.part(OverlapParts::kOther);
    scalars(others);
    parts_.add(OverlapParts::kOther, std::move(others));
    parts_.check(check_.op());
    return std::move(call_);
  }

 private:
  void lengths() const {
    constexpr const char* kPerParam = "one per param";
    check_.length("grads", a_.grads.size(), count_, kPerParam);
    for (int k = 0; k < rule_.state_count; ++k) check_.length(rule_.states[k].name, a_.states[k].size(), count_, kPerParam);
    check_.length("masks", a_.masks.size(), count_, kPerParam);
    check_.length("counts", a_.counts.size(), count_, kPerParam);
    if (a_.lr.size() != 1) check_.length("lr", a_.lr.size(), count_, "one, or one per param");
    if (a_.weight_decay.size() != 1) check_.length("weight_decay", a_.weight_decay.size(), count_, "one, or one per param");
    if (a_.seeds.size() != 1) check_.length("seeds", a_.seeds.size(), count_, "one, or one per param");
    if (!a_.shards.empty()) check_.length("shards", a_.shards.size(), 4 * count_, "none, or four per param");
  }

  int64_t integer(const char* argument, int64_t value, int64_t low, int64_t high) const {
    check_.range(argument, -1, double(value), double(low), double(high), false);
    return value;
  }

  void options() {
    CommonArgs& c = call_.common;
    c.decay = DecayMode(integer("decay", a_.decay, 0, 5));
    c.max_lr = a_.max_lr;
    check_.range("max_lr", -1, a_.max_lr, 0, kUnbounded, false);
    c.maximize = a_.maximize;
    c.cautious = a_.cautious ? Cautious::kMask : Cautious::kOff;
    const auto numbers = [&](const char* argument, const std::vector<double>& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        check_.range(argument, values.size() == 1 ? -1 : int64_t(i), values[i], 0, kUnbounded, false);
      }
    };
    numbers("lr", a_.lr);
    numbers("weight_decay", a_.weight_decay);
    for (const double decay : a_.weight_decay) {
      if (c.decay == DecayMode::kNone && decay != 0) {
        refuse(check_.op(), "weight_decay is ", decay, " while decay is 0 (NONE), expected 0 or another decay mode");
      }
    }
    if (c.decay == DecayMode::kLrDecoupled && a_.max_lr == 0) {
      refuse(check_.op(), "max_lr is 0, expected the largest learning rate (> 0)");
    }
    SubsetOptions& o = call_.options;
    o.axis = Axis(integer("axis", a_.axis, -1, 1));
    o.rest = Rest(integer("rest", a_.rest, 0, 3));
    check_.range("rest_scale", -1, a_.rest_scale, 0, kUnbounded, false);
    o.rest_scale = float(a_.rest_scale);
    o.interval = integer("interval", a_.interval, 0, int64_t(kMostSteps));
    o.phase = integer("phase", a_.phase, 0, 1);
    o.restart = a_.restart;
    if (o.axis != Axis::kTensor && !o.restart && o.interval != 0) {
      refuse(check_.op(), "restart is False while axis is ", a_.axis,
             ", expected True: only elements (axis -1) keep their states when units are drawn again");
    }
  }

  void hypers() {
    CommonArgs& c = call_.common;
    for (int k = 0; k < rule_.hyper_count; ++k) {
      const HyperInfo& hyper = rule_.hypers[k];
      if (hyper.kind != HyperKind::kBool) check_.range(hyper.name, -1, a_.hypers[k], hyper.low, hyper.high, hyper.high_open);
      c.hypers[k] = a_.hypers[k];
      if (!a_.hyper_tensors[k]) continue;
      c.hyper_tensors[k] = check_.scalar((std::string(hyper.name) + "_tensor").c_str(), *a_.hyper_tensors[k], -1);
      c.device_hypers = true;
    }
  }

  // By several threads at once, which share nothing that they write.
  void tensors(size_t begin, size_t end) {
    OverlapCheck overlap = parts_.part(begin);
    for (size_t i = begin; i < end; ++i) tensor(i, overlap);
    parts_.add(begin, std::move(overlap));
  }

  void tensor(size_t i, OverlapCheck& overlap) {
    SubsetTensor& t = call_.tensors[i] = {};
    const auto index = int64_t(i);
    const TensorInfo &param = a_.params[i], &grad = a_.grads[i];
    check_.strided("params", index, param);
    check_.device("params", index, param);
    t.param_dtype = storage("params", index, param);
    const bool by_element = call_.options.axis == Axis::kTensor;
    if (by_element) {
      check_.dense("params", index, param);
    } else if (!is_contiguous(param)) {
      refuse(check_.op(), label("params", index), " has strides ", strides_text(param),
             ", expected a contiguous tensor (rows and columns are those of dim 0 x the rest)");
    }
    check_.strided("grads", index, grad);
    check_.device("grads", index, grad);
    check_.like_param("grads", index, grad, param);
    t.grad_dtype = storage("grads", index, grad);
    t.param = param.data;
    t.grad = grad.data;
    t.numel = param.numel;
    t.rows = by_element || param.dim == 0 ? 1 : param.sizes[0];
    t.cols = by_element ? param.numel : columns(param);
    place(i, t);
    t.count = a_.counts[i];
    check_.range("counts", index, double(t.count), 0, double(t.units), false);
    const SubsetLines lines = make_lines(call_.options.axis, t);
    const int64_t per_unit = call_.options.axis == Axis::kRow ? t.cols : t.rows;
    overlap.add(t.param, t.numel * item_size(t.param_dtype), "params", index, true);
    overlap.add(t.grad, t.numel * item_size(t.grad_dtype), "grads", index, false);
    for (int k = 0; k < rule_.state_count; ++k) {
      const TensorInfo& state = a_.states[k][i];
      const int64_t size = lines.room * per_unit;
      t.states[k] = static_cast<float*>(check_.vector(rule_.states[k].name, index, state, DType::kFloat32, size));
      overlap.add(t.states[k], size * 4, rule_.states[k].name, index, true);
    }
    mask(i, mask_words(lines, t.rows), t, overlap);
    t.lr = a_.lr.size() == 1 ? a_.lr[0] : a_.lr[i];
    t.weight_decay = a_.weight_decay.size() == 1 ? a_.weight_decay[0] : a_.weight_decay[i];
    t.seed = uint64_t(a_.seeds.size() == 1 ? a_.seeds[0] : a_.seeds[i]);
  }

  // Where the units of a tensor are among those of the whole that it is a part of.
  void place(size_t i, SubsetTensor& t) const {
    const bool by_element = call_.options.axis == Axis::kTensor;
    const int64_t local = call_.options.axis == Axis::kRow ? t.rows : t.cols;
    t.units = local;
    if (a_.shards.empty()) return;
    const int64_t* shard = a_.shards.data() + 4 * i;
    const int64_t line = shard[2], stride = shard[3], lines = by_element && line > 0 ? t.numel / line : 1;
    const bool fits = line >= 0 && (by_element ? lines * line == t.numel : line == local) && shard[1] >= 0 &&
                      shard[0] <= kMostUnits && (stride == 0 || (by_element && stride >= line)) && (lines <= 1 || stride > 0);
    // In doubles, which cannot overflow and have every number of a whole.
    const double end = double(shard[1]) + double(std::max<int64_t>(lines - 1, 0)) * double(stride) + double(line);
    if (!fits || end > double(shard[0])) {
      refuse(check_.op(), label("shards", int64_t(i)), " says that ", local, " units are lines of ", line,
             ", the first from unit ", shard[1], " of ", shard[0], " on, one every ", stride,
             ", expected lines that make up the tensor inside the whole (a stride of 0 where there is one line)");
    }
    t.units = shard[0];
    t.start = shard[1];
    t.stride = lines > 1 ? stride : 0;
    if (by_element) t.rows = lines, t.cols = line;
  }

  DType storage(const char* argument, int64_t index, const TensorInfo& info) const {
    const std::optional<DType> dtype = storage_dtype(info);
    if (dtype && *dtype != DType::kFloat64) return *dtype;
    refuse(check_.op(), label(argument, index), " has dtype ", dtype_name(info), ", expected float32, bfloat16 or float16");
  }

  // Where all units or none are chosen, there is nothing to say which.
  void mask(size_t i, int64_t all_words, SubsetTensor& t, OverlapCheck& overlap) const {
    const auto index = int64_t(i);
    const TensorInfo& info = a_.masks[i];
    check_.strided("masks", index, info);
    check_.device("masks", index, info);
    const int64_t words = t.count == 0 || t.count == t.units ? 0 : all_words;
    if (info.dtype != aoti_torch_dtype_int32() || info.numel != words || !is_contiguous(info)) {
      refuse(check_.op(), label("masks", index), " has dtype ", dtype_name(info), " and shape ", shape_text(info),
             ", expected ", words, " contiguous elements of int32: a bit for each unit, and none where all of ", t.units,
             " or none are chosen");
    }
    if (words == 0) return;
    t.mask = static_cast<uint32_t*>(info.data);
    overlap.add(t.mask, words * 4, "masks", index, true);
  }

  void reads(const char* argument, const DeviceScalar& scalar, OverlapCheck& overlap) {
    overlap.add(scalar.data, (scalar.per_tensor ? int64_t(count_) : 1) * item_size(scalar.dtype), argument, -1, false);
  }

  void scalars(OverlapCheck& overlap) {
    CommonArgs& c = call_.common;
    const int64_t steps = int64_t(count_) + 1;
    c.steps = static_cast<float*>(check_.vector("steps", -1, a_.steps, DType::kFloat32, steps));
    overlap.add(c.steps, steps * 4, "steps", -1, true);
    for (int k = 0; k < rule_.hyper_count; ++k) {
      if (a_.hyper_tensors[k]) reads(rule_.hypers[k].name, c.hyper_tensors[k], overlap);
    }
    if (a_.lr_tensor) {
      c.lr = check_.scalar("lr_tensor", *a_.lr_tensor, int64_t(count_));
      reads("lr_tensor", c.lr, overlap);
    }
    if (a_.weight_decay_tensor) {
      c.weight_decay = check_.scalar("weight_decay_tensor", *a_.weight_decay_tensor, int64_t(count_));
      reads("weight_decay_tensor", c.weight_decay, overlap);
    }
    const auto flag = [&](const char* argument, const std::optional<TensorInfo>& tensor, const float*& out) {
      if (!tensor) return;
      out = check_.flag(argument, *tensor);
      overlap.add(out, 4, argument, -1, false);
    };
    flag("grad_scale", a_.grad_scale, c.grad_scale);
    flag("found_inf", a_.found_inf, c.found_inf);
  }

  const SubsetDescription& rule_;
  const SubsetArguments& a_;
  Checker check_;
  size_t count_;
  SubsetCall call_;
  OverlapParts parts_;
};

}  // namespace

CheckedSubset check_subset(const SubsetDescription& rule, const SubsetArguments& arguments, const TensorLoop& loop) {
  CheckedSubset step{subset_op(rule), {}, 0};
  const TensorInfo& first = arguments.params.empty() ? arguments.steps : arguments.params[0];
  step.device_index = first.device_index;
  step.call = SubsetUnpacker(rule, step.op.c_str(), arguments, {first.device_type, first.device_index}).unpack(loop);
  return step;
}

void run_subset(const SubsetDescription& rule, const CheckedSubset& step) {
  if (!step.call.tensors.empty()) rule.run(step.op.c_str(), step.call, step.device_index);
}

}  // namespace momentum::ops
