// The ops of steps on a subset: momentum::<rule>_subset_ for SPAM, Adam, Lion and SGD. See core/subset.h.
//
// `shards` has four numbers per param that is a part of a whole: the whole's units, the first one of the param, how many
// neighbours in the whole follow each other in the param, and how far it is from one such line to the next.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string>

#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stack.h"
#include "torch/subset_backend.h"
#include "torch/subset_schema.h"

namespace momentum::ops {
namespace {

using torch::stable::detail::StableLibrary;

constexpr double kUnbounded = 1e300, kMostSteps = 1e9;
constexpr int64_t kMostUnits = int64_t(1) << 35;  // block * rest in SubsetShares stays below 2^63

struct Lists {
  TensorList params, grads;
  std::vector<TensorList> states;
  TensorList masks;
  TensorHandle steps;
};

struct Numbers {
  std::vector<int64_t> counts;
  std::vector<double> lr, weight_decay;
  double hypers[kMaxHypers] = {};
  std::optional<torch::stable::Tensor> lr_tensor, weight_decay_tensor, hyper_tensors[kMaxHypers], grad_scale, found_inf;
  int64_t decay = 0;
  double max_lr = 1.0;
  bool maximize = false, cautious = false;
  int64_t axis = -1, rest = 0;
  double rest_scale = 1.0;
  int64_t interval = 0, phase = 0;
  bool restart = false;
  std::vector<int64_t> seeds, shards;
};

std::vector<TensorList> take_states(const SubsetDescription& rule, Stack& stack) {
  std::vector<TensorList> states;
  for (int k = 0; k < rule.state_count; ++k) states.push_back(stack.tensors());
  return states;
}

Numbers take_numbers(const SubsetDescription& rule, Stack& stack) {
  Numbers n;
  n.counts = stack.ints();
  n.lr = stack.floats();
  n.weight_decay = stack.floats();
  for (int k = 0; k < rule.hyper_count; ++k) {
    const HyperKind kind = rule.hypers[k].kind;
    n.hypers[k] = kind == HyperKind::kFloat ? stack.number()
                  : kind == HyperKind::kInt ? double(stack.integer())
                                            : double(stack.boolean());
  }
  n.lr_tensor = stack.optional_tensor();
  n.weight_decay_tensor = stack.optional_tensor();
  for (int k = 0; k < rule.hyper_count; ++k) {
    if (rule.hypers[k].tensor) n.hyper_tensors[k] = stack.optional_tensor();
  }
  n.grad_scale = stack.optional_tensor();
  n.found_inf = stack.optional_tensor();
  n.decay = stack.integer();
  n.max_lr = stack.number();
  n.maximize = stack.boolean();
  n.cautious = stack.boolean();
  n.axis = stack.integer();
  n.rest = stack.integer();
  n.rest_scale = stack.number();
  n.interval = stack.integer();
  n.phase = stack.integer();
  n.restart = stack.boolean();
  n.seeds = stack.ints();
  n.shards = stack.ints();
  return n;
}

// Turns arguments into a SubsetCall, refusing whatever a kernel must not see.
class SubsetUnpacker {
 public:
  SubsetUnpacker(const SubsetDescription& rule, const std::string& op, const Lists& lists, const Numbers& numbers,
                 Device device)
      : rule_(rule), l_(lists), n_(numbers), check_(op.c_str(), device), count_(lists.params.size()) {}

  SubsetCall unpack() {
    lengths();
    options();
    hypers();
    call_.tensors.resize(count_);
    for (size_t i = 0; i < count_; ++i) tensor(i);
    scalars();
    overlap_.check(check_.op());
    return std::move(call_);
  }

 private:
  void lengths() const {
    constexpr const char* kPerParam = "one per param";
    check_.length("grads", l_.grads.size(), count_, kPerParam);
    for (int k = 0; k < rule_.state_count; ++k) check_.length(rule_.states[k].name, l_.states[k].size(), count_, kPerParam);
    check_.length("masks", l_.masks.size(), count_, kPerParam);
    check_.length("counts", n_.counts.size(), count_, kPerParam);
    if (n_.lr.size() != 1) check_.length("lr", n_.lr.size(), count_, "one, or one per param");
    if (n_.weight_decay.size() != 1) check_.length("weight_decay", n_.weight_decay.size(), count_, "one, or one per param");
    if (n_.seeds.size() != 1) check_.length("seeds", n_.seeds.size(), count_, "one, or one per param");
    if (!n_.shards.empty()) check_.length("shards", n_.shards.size(), 4 * count_, "none, or four per param");
  }

  int64_t integer(const char* argument, int64_t value, int64_t low, int64_t high) const {
    check_.range(argument, -1, double(value), double(low), double(high), false);
    return value;
  }

  void options() {
    CommonArgs& c = call_.common;
    c.decay = DecayMode(integer("decay", n_.decay, 0, 5));
    c.max_lr = n_.max_lr;
    check_.range("max_lr", -1, n_.max_lr, 0, kUnbounded, false);
    c.maximize = n_.maximize;
    c.cautious = n_.cautious ? Cautious::kMask : Cautious::kOff;
    const auto numbers = [&](const char* argument, const std::vector<double>& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        check_.range(argument, values.size() == 1 ? -1 : int64_t(i), values[i], 0, kUnbounded, false);
      }
    };
    numbers("lr", n_.lr);
    numbers("weight_decay", n_.weight_decay);
    for (const double decay : n_.weight_decay) {
      if (c.decay == DecayMode::kNone && decay != 0) {
        refuse(check_.op(), "weight_decay is ", decay, " while decay is 0 (NONE), expected 0 or another decay mode");
      }
    }
    if (c.decay == DecayMode::kLrDecoupled && n_.max_lr == 0) {
      refuse(check_.op(), "max_lr is 0, expected the largest learning rate (> 0)");
    }
    SubsetOptions& o = call_.options;
    o.axis = Axis(integer("axis", n_.axis, -1, 1));
    o.rest = Rest(integer("rest", n_.rest, 0, 3));
    check_.range("rest_scale", -1, n_.rest_scale, 0, kUnbounded, false);
    o.rest_scale = float(n_.rest_scale);
    o.interval = integer("interval", n_.interval, 0, int64_t(kMostSteps));
    o.phase = integer("phase", n_.phase, 0, 1);
    o.restart = n_.restart;
    if (o.axis != Axis::kTensor && !o.restart && o.interval != 0) {
      refuse(check_.op(), "restart is False while axis is ", n_.axis,
             ", expected True: only elements (axis -1) keep their states when units are drawn again");
    }
  }

  void hypers() {
    CommonArgs& c = call_.common;
    for (int k = 0; k < rule_.hyper_count; ++k) {
      const HyperInfo& hyper = rule_.hypers[k];
      if (hyper.kind != HyperKind::kBool) check_.range(hyper.name, -1, n_.hypers[k], hyper.low, hyper.high, hyper.high_open);
      c.hypers[k] = n_.hypers[k];
      if (!n_.hyper_tensors[k]) continue;
      c.hyper_tensors[k] =
          check_.scalar((std::string(hyper.name) + "_tensor").c_str(), describe(n_.hyper_tensors[k]->get()), -1);
      c.device_hypers = true;
      reads(hyper.name, c.hyper_tensors[k]);
    }
  }

  void tensor(size_t i) {
    SubsetTensor& t = call_.tensors[i];
    const auto index = int64_t(i);
    const TensorInfo param = describe(l_.params[i]), grad = describe(l_.grads[i]);
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
    t.count = n_.counts[i];
    check_.range("counts", index, double(t.count), 0, double(t.units), false);
    const SubsetLines lines = make_lines(call_.options.axis, t);
    const int64_t per_unit = call_.options.axis == Axis::kRow ? t.cols : t.rows;
    overlap_.add(t.param, t.numel * item_size(t.param_dtype), "params", index, true);
    overlap_.add(t.grad, t.numel * item_size(t.grad_dtype), "grads", index, false);
    for (int k = 0; k < rule_.state_count; ++k) {
      const TensorInfo state = describe(l_.states[k][i]);
      const int64_t size = lines.room * per_unit;
      t.states[k] = static_cast<float*>(check_.vector(rule_.states[k].name, index, state, DType::kFloat32, size));
      overlap_.add(t.states[k], size * 4, rule_.states[k].name, index, true);
    }
    mask(i, mask_words(lines, t.rows), t);
    t.lr = n_.lr.size() == 1 ? n_.lr[0] : n_.lr[i];
    t.weight_decay = n_.weight_decay.size() == 1 ? n_.weight_decay[0] : n_.weight_decay[i];
    t.seed = uint64_t(n_.seeds.size() == 1 ? n_.seeds[0] : n_.seeds[i]);
  }

  // Where the units of a tensor are among those of the whole that it is a part of.
  void place(size_t i, SubsetTensor& t) const {
    const bool by_element = call_.options.axis == Axis::kTensor;
    const int64_t local = call_.options.axis == Axis::kRow ? t.rows : t.cols;
    t.units = local;
    if (n_.shards.empty()) return;
    const int64_t* shard = n_.shards.data() + 4 * i;
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
  void mask(size_t i, int64_t all_words, SubsetTensor& t) {
    const auto index = int64_t(i);
    const TensorInfo info = describe(l_.masks[i]);
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
    overlap_.add(t.mask, words * 4, "masks", index, true);
  }

  void reads(const char* argument, const DeviceScalar& scalar) {
    overlap_.add(scalar.data, (scalar.per_tensor ? int64_t(count_) : 1) * item_size(scalar.dtype), argument, -1, false);
  }

  void scalars() {
    CommonArgs& c = call_.common;
    const int64_t steps = int64_t(count_) + 1;
    c.steps = static_cast<float*>(check_.vector("steps", -1, describe(l_.steps.get()), DType::kFloat32, steps));
    overlap_.add(c.steps, steps * 4, "steps", -1, true);
    if (n_.lr_tensor) reads("lr_tensor", c.lr = check_.scalar("lr_tensor", describe(n_.lr_tensor->get()), int64_t(count_)));
    if (n_.weight_decay_tensor) {
      c.weight_decay = check_.scalar("weight_decay_tensor", describe(n_.weight_decay_tensor->get()), int64_t(count_));
      reads("weight_decay_tensor", c.weight_decay);
    }
    const auto flag = [&](const char* argument, const std::optional<torch::stable::Tensor>& tensor, const float*& out) {
      if (!tensor) return;
      out = check_.flag(argument, describe(tensor->get()));
      overlap_.add(out, 4, argument, -1, false);
    };
    flag("grad_scale", n_.grad_scale, c.grad_scale);
    flag("found_inf", n_.found_inf, c.found_inf);
  }

  const SubsetDescription& rule_;
  const Lists& l_;
  const Numbers& n_;
  Checker check_;
  size_t count_;
  SubsetCall call_;
  OverlapCheck overlap_;
};

void step_subset(const SubsetDescription& rule, const StableIValue* values) {
  Stack stack(values);
  // Braces evaluate left to right.
  const Lists lists{stack.tensors(), stack.tensors(), take_states(rule, stack), stack.tensors(), stack.tensor()};
  const Numbers numbers = take_numbers(rule, stack);
  const std::string op = std::string(rule.rule) + "_subset_";
  const TensorInfo first = describe(lists.params.size() != 0 ? lists.params[0] : lists.steps.get());
  const SubsetCall call = SubsetUnpacker(rule, op, lists, numbers, {first.device_type, first.device_index}).unpack();
  if (!call.tensors.empty()) rule.run(op.c_str(), call, first.device_index);
}

template <class Rule>
struct SubsetRegistration {
  SubsetRegistration() {
    const std::string op = std::string(Rule::kName) + "_subset_";
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(subset_schema(description()).c_str());
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl(op.c_str(), [](StableIValue* stack, uint64_t, uint64_t) { step_subset(description(), stack); });
  }

 private:
  static const SubsetDescription& description() {
    static constexpr SubsetDescription rule = describe_subset<Rule>();
    return rule;
  }
};

const SubsetRegistration<rules::Adam> adam;
const SubsetRegistration<rules::Lion> lion;
const SubsetRegistration<rules::Sgd> sgd;
const SubsetRegistration<rules::Spam> spam;

}  // namespace
}  // namespace momentum::ops
