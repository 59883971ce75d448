#include "torch/step_op.h"

#include <string>
#include <vector>

#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stack.h"

namespace momentum::ops {
namespace {

using formats::CodeMap;

constexpr double kUnbounded = 1e300;
const int32_t kUint8 = aoti_torch_dtype_uint8();

// The arguments of one call, in the order of the schema.
struct Tensors {
  TensorList params, grads;
  std::vector<TensorList> states;
  TensorList scales, residuals, ema_params, scalars;
  TensorHandle steps, totals;
};

struct Arguments : Tensors {
  explicit Arguments(Tensors tensors) : Tensors(std::move(tensors)) {}

  std::vector<double> lr, weight_decay;
  double hypers[kMaxHypers] = {};
  std::optional<torch::stable::Tensor> lr_tensor, weight_decay_tensor, hyper_tensors[kMaxHypers], grad_scale, found_inf;
  int64_t decay = 0;
  double max_lr = 1.0;
  bool maximize = false;
  int64_t cautious = 0, residual = 0, rounding = 0;
  std::vector<int64_t> seeds, shards;
  double ema_decay = 0.0;
  std::vector<int64_t> state_formats;
  int64_t perpendicular = 0, stage = 0;
};

std::vector<TensorList> take_states(const RuleDescription& rule, Stack& stack) {
  std::vector<TensorList> states;
  states.reserve(rule.state_count);
  for (int k = 0; k < rule.state_count; ++k) states.push_back(stack.tensors());
  return states;
}

Arguments take(const RuleDescription& rule, Stack stack) {
  // Braces evaluate left to right.
  Arguments a(Tensors{stack.tensors(), stack.tensors(), take_states(rule, stack), stack.tensors(), stack.tensors(),
                      stack.tensors(), stack.tensors(), stack.tensor(), stack.tensor()});
  a.lr = stack.floats();
  a.weight_decay = stack.floats();
  for (int k = 0; k < rule.hyper_count; ++k) {
    switch (rule.hypers[k].kind) {
      case HyperKind::kFloat:
        a.hypers[k] = stack.number();
        break;
      case HyperKind::kInt:
        a.hypers[k] = double(stack.integer());
        break;
      case HyperKind::kBool:
        a.hypers[k] = stack.boolean() ? 1.0 : 0.0;
        break;
    }
  }
  a.lr_tensor = stack.optional_tensor();
  a.weight_decay_tensor = stack.optional_tensor();
  for (int k = 0; k < rule.hyper_count; ++k) {
    if (rule.hypers[k].tensor) a.hyper_tensors[k] = stack.optional_tensor();
  }
  a.grad_scale = stack.optional_tensor();
  a.found_inf = stack.optional_tensor();
  a.decay = stack.integer();
  a.max_lr = stack.number();
  a.maximize = stack.boolean();
  a.cautious = stack.integer();
  a.residual = stack.integer();
  a.rounding = stack.integer();
  a.seeds = stack.ints();
  a.shards = stack.ints();
  a.ema_decay = stack.number();
  a.state_formats = stack.ints();
  a.perpendicular = stack.integer();
  a.stage = stack.integer();
  return a;
}

// Turns arguments into a StepCall, refusing whatever a kernel must not see.
class Unpacker {
 public:
  Unpacker(const RuleDescription& rule, const std::string& op, const Arguments& arguments, Device device)
      : rule_(rule), a_(arguments), check_(op.c_str(), device), count_(arguments.params.size()) {}

  StepCall unpack() {
    lengths();
    numbers();
    options();
    state_formats();
    call_.tensors.resize(count_);
    overlap_.reserve(count_ * (3 + rule_.state_count));
    for (size_t i = 0; i < count_; ++i) tensor(i);
    vectors();
    overlap_.check(check_.op());
    return std::move(call_);
  }

 private:
  bool has_state(int k) const { return !rule_.states[k].optional || a_.states[k].size() != 0; }

  void lengths() const {
    constexpr const char* kPerParam = "one per param";
    check_.length("grads", a_.grads.size(), count_, kPerParam);
    for (int k = 0; k < rule_.state_count; ++k) {
      if (has_state(k)) check_.length(rule_.states[k].name, a_.states[k].size(), count_, kPerParam);
    }
    if (a_.residuals.size() != 0) check_.length("residuals", a_.residuals.size(), count_, kPerParam);
    if (a_.ema_params.size() != 0) check_.length("ema_params", a_.ema_params.size(), count_, kPerParam);
    if (rule_.scalar_count > 0) {
      check_.length("scalars", a_.scalars.size(), count_, kPerParam);
    } else {
      check_.length("scalars", a_.scalars.size(), 0, "this op keeps none");
    }
    if (a_.lr.size() != 1) check_.length("lr", a_.lr.size(), count_, "one, or one per param");
    if (a_.weight_decay.size() != 1) check_.length("weight_decay", a_.weight_decay.size(), count_, "one, or one per param");
    if (a_.seeds.size() != 1) check_.length("seeds", a_.seeds.size(), count_, "one, or one per param");
    if (!a_.shards.empty()) check_.length("shards", a_.shards.size(), 3 * count_, "none, or three per param");
  }

  int64_t integer(const char* argument, int64_t value, int64_t low, int64_t high) const {
    check_.range(argument, -1, double(value), double(low), double(high), false);
    return value;
  }

  void numbers() {
    for (size_t i = 0; i < a_.lr.size(); ++i) check_.range("lr", place(a_.lr, i), a_.lr[i], 0, kUnbounded, false);
    for (size_t i = 0; i < a_.weight_decay.size(); ++i) {
      check_.range("weight_decay", place(a_.weight_decay, i), a_.weight_decay[i], 0, kUnbounded, false);
    }
    CommonArgs& c = call_.common;
    for (int k = 0; k < rule_.hyper_count; ++k) {
      const HyperInfo& hyper = rule_.hypers[k];
      if (hyper.kind != HyperKind::kBool) check_.range(hyper.name, -1, a_.hypers[k], hyper.low, hyper.high, hyper.high_open);
      c.hypers[k] = a_.hypers[k];
      if (!a_.hyper_tensors[k]) continue;
      const std::string argument = std::string(hyper.name) + "_tensor";
      c.hyper_tensors[k] = check_.scalar(argument.c_str(), *a_.hyper_tensors[k], -1);
      c.device_hypers = true;
    }
    if (a_.lr_tensor) c.lr = check_.scalar("lr_tensor", *a_.lr_tensor, int64_t(count_));
    if (a_.weight_decay_tensor) c.weight_decay = check_.scalar("weight_decay_tensor", *a_.weight_decay_tensor, int64_t(count_));
    if (a_.grad_scale) c.grad_scale = check_.flag("grad_scale", *a_.grad_scale);
    if (a_.found_inf) c.found_inf = check_.flag("found_inf", *a_.found_inf);
    check_.range("ema_decay", -1, a_.ema_decay, 0, 1, true);
    c.ema_decay = a_.ema_decay;
    check_.range("max_lr", -1, a_.max_lr, 0, kUnbounded, false);
    c.max_lr = a_.max_lr;
  }

  static int64_t place(const std::vector<double>& values, size_t i) { return values.size() == 1 ? -1 : int64_t(i); }

  void options() {
    CommonArgs& c = call_.common;
    const char* op = check_.op();
    c.maximize = a_.maximize;
    c.decay = DecayMode(integer("decay", a_.decay, 0, 5));
    c.cautious = Cautious(integer("cautious", a_.cautious, 0, 2));
    c.residual = ResidualKind(integer("residual", a_.residual, 0, 3));
    c.rounding = Rounding(integer("rounding", a_.rounding, 0, 1));
    if (c.decay == DecayMode::kNone) {
      for (const double decay : a_.weight_decay) {
        if (decay != 0) refuse(op, "weight_decay is ", decay, " while decay is 0 (NONE), expected 0 or another decay mode");
      }
    }
    if (c.decay == DecayMode::kLrDecoupled && a_.max_lr == 0)
      refuse(op, "max_lr is 0, expected the largest learning rate (> 0)");
    if (c.residual == ResidualKind::kNone && a_.residuals.size() != 0) {
      refuse(op, "residuals has length ", a_.residuals.size(), " while residual is 0 (NONE), expected 0");
    }
    if (c.residual != ResidualKind::kNone && a_.residuals.size() != count_) {
      refuse(op, "residuals has length ", a_.residuals.size(), ", expected ", count_, " (one per param)");
    }
    if (c.residual == ResidualKind::kKahan && c.rounding == Rounding::kStochastic) {
      refuse(op, "rounding is 1 (STOCHASTIC) while residual is 1 (KAHAN), expected 0 (NEAREST): the compensation keeps what ",
             "rounding loses");
    }
    reductions_ = rule_.reduction_count + (c.cautious == Cautious::kRescaled ? 1 : 0);
    const bool perpendicular = integer("perpendicular", a_.perpendicular, 0, 2) != 0;
    c.renormalize = a_.perpendicular == 2;
    call_.stage = int(integer("stage", a_.stage, -1, 2 * reductions_ + (perpendicular ? 2 : 0)));
    for (size_t i = 0; i < a_.shards.size(); ++i) {
      if (a_.shards[i] < 0) refuse(op, "shards[", i, "] is ", a_.shards[i], ", expected a number >= 0");
    }
  }

  // Four numbers per state: the code map, elements per block, how codes are rounded, and what has a scale. Scales come in one
  // list, those of the first quantised state before those of the next.
  void state_formats() {
    const char* op = check_.op();
    if (a_.state_formats.empty()) return check_.length("scales", a_.scales.size(), 0, "state_formats names no quantised state");
    check_.length("state_formats", a_.state_formats.size(), size_t(4 * rule_.state_count), "none, or four per state");
    size_t quantised = 0;
    for (int k = 0; k < rule_.state_count; ++k) {
      const int64_t map = a_.state_formats[4 * k], block = a_.state_formats[4 * k + 1], rounding = a_.state_formats[4 * k + 2];
      const int64_t scaling = a_.state_formats[4 * k + 3];
      check_.range("state_formats", 4 * k, double(map), 0, formats::kCodeMaps - 1, false);
      if (map == 0) continue;
      if (!has_state(k)) {
        refuse(op, "state_formats[", 4 * k, "] is ", map, ", expected 0: ", rule_.states[k].name, " is not given");
      }
      if (!is_block_size(block)) {
        refuse(op, "state_formats[", 4 * k + 1, "] is ", block, ", expected a block of 64, 128 or 256 elements");
      }
      check_.range("state_formats", 4 * k + 2, double(rounding), 0, 1, false);
      check_.range("state_formats", 4 * k + 3, double(scaling), 0, 2, false);
      StateFormat& format = call_.common.state_formats[k];
      format.map = CodeMap(map);
      format.block = int(block);
      format.stochastic = rounding == 1;
      format.scaling = Scaling(scaling);
      first_scale_[k] = quantised;
      quantised += count_;
    }
    check_.length("scales", a_.scales.size(), quantised, "one per param and quantised state");
    for (int k = 0; k < rule_.state_count; ++k) set_scale_dtype(k);
  }

  // All scales of a state have one dtype: that of the first that is not empty.
  void set_scale_dtype(int k) {
    StateFormat& format = call_.common.state_formats[k];
    if (format.map == CodeMap::kNone) return;
    for (size_t i = first_scale_[k]; i < first_scale_[k] + count_; ++i) {
      const TensorInfo info = describe(a_.scales[i]);
      if (info.numel == 0) continue;
      format.scale_dtype = check_.dtype("scales", int64_t(i), info, false);
      if (format.scaling != Scaling::kBlock && format.scale_dtype != DType::kFloat32) {
        refuse(check_.op(), "scales[", i, "] has dtype ", dtype_name(info), ", expected float32: scales of rows and columns");
      }
      return;
    }
  }

  void quantised_state(int k, size_t i, const TensorInfo& codes, const TensorInfo& param, TensorArgs& t) {
    const auto index = int64_t(i), place = int64_t(first_scale_[k] + i);
    const char* argument = rule_.states[k].name;
    const StateFormat& format = call_.common.state_formats[k];
    if (format.map == CodeMap::kNone) {
      refuse(check_.op(), argument, "[", i, "] has dtype uint8, expected a floating point dtype: state_formats names no format",
             " for this state");
    }
    if (t.param_dtype == DType::kFloat64) {
      refuse(check_.op(), argument, "[", i, "] has dtype uint8, expected float64: params[", i,
             "] is float64, whose states are ", "not quantised");
    }
    t.states[k] = check_.bytes(argument, index, codes, formats::code_bytes(format.map, param.numel));
    t.state_dtypes[k] = DType::kCodes;
    const int64_t blocks = scale_count(format, t.numel, t.rows, t.cols);
    if (has_matrix_scales(format, t.rows, t.cols) && !is_contiguous(param)) {
      refuse(check_.op(), "params[", i, "] has strides ", strides_text(param), ", expected a contiguous tensor (", argument,
             " has a scale for each row and column)");
    }
    t.scales[k] = check_.vector("scales", place, describe(a_.scales[size_t(place)]), format.scale_dtype, blocks);
    overlap_.add(t.states[k], codes.numel, argument, index, true);
    overlap_.add(t.scales[k], blocks * item_size(format.scale_dtype), "scales", place, true);
  }

  // Where the formats of a call do not apply to one of its states, its scales are an empty tensor.
  void no_scales(int k, size_t i) const {
    if (call_.common.state_formats[k].map == CodeMap::kNone) return;
    const size_t place = first_scale_[k] + i;
    const TensorInfo info = describe(a_.scales[place]);
    if (info.numel == 0) return;
    refuse(check_.op(), "scales[", place, "] has shape ", shape_text(info),
           ", expected an empty tensor: ", rule_.states[k].name, "[", i, "] is not quantised");
  }

  TensorInfo like_param(const char* argument, size_t i, AtenTensorHandle handle, const TensorInfo& param) const {
    const TensorInfo info = describe(handle);
    check_.strided(argument, int64_t(i), info);
    check_.device(argument, int64_t(i), info);
    check_.like_param(argument, int64_t(i), info, param);
    return info;
  }

  void tensor(size_t i) {
    TensorArgs& t = call_.tensors[i];
    const auto index = int64_t(i);
    const TensorInfo param = describe(a_.params[i]);
    check_.strided("params", index, param);
    check_.device("params", index, param);
    t.param_dtype = check_.dtype("params", index, param, true);
    check_.dense("params", index, param);
    const bool wide = t.param_dtype == DType::kFloat64;
    t.param = param.data;
    t.numel = param.numel;
    t.rows = param.dim > 0 ? param.sizes[0] : 1;
    t.cols = columns(param);
    if (rule_.matrices_only && param.dim < 2) {
      t.rows = 0;
      t.cols = t.numel;
    }
    overlap_.add(param.data, param.numel * item_size(t.param_dtype), "params", index, true);

    const TensorInfo grad = like_param("grads", i, a_.grads[i], param);
    t.grad_dtype = check_.dtype("grads", index, grad, wide);
    t.grad = grad.data;
    overlap_.add(grad.data, grad.numel * item_size(t.grad_dtype), "grads", index, false);

    for (int k = 0; k < rule_.state_count; ++k) {
      if (!has_state(k)) continue;
      const char* argument = rule_.states[k].name;
      if (const TensorInfo codes = describe(a_.states[k][i]); codes.dtype == kUint8) {
        quantised_state(k, i, codes, param, t);
        continue;
      }
      const TensorInfo state = like_param(argument, i, a_.states[k][i], param);
      t.state_dtypes[k] = check_.dtype(argument, index, state, wide);
      no_scales(k, i);
      t.states[k] = state.data;
      overlap_.add(state.data, state.numel * item_size(t.state_dtypes[k]), argument, index, true);
    }
    if (a_.residuals.size() != 0) residual(i, param, t);
    if (a_.ema_params.size() != 0) ema(i, param, wide, t);
    if (rule_.scalar_count > 0) {
      const TensorInfo scalars = describe(a_.scalars[i]);
      t.scalars = static_cast<float*>(check_.vector("scalars", index, scalars, DType::kFloat32, rule_.scalar_count));
      overlap_.add(t.scalars, scalars.numel * 4, "scalars", index, true);
    }
    if (rule_.uses_segments && !(rule_.matrices_only ? has_rows(param) : is_contiguous(param))) {
      refuse(check_.op(), "params[", i, "] has strides ", strides_text(param),
             ", expected a contiguous tensor (rows and columns ", "are those of dim 0 x the rest)");
    }
    t.lr = a_.lr.size() == 1 ? a_.lr[0] : a_.lr[i];
    t.weight_decay = a_.weight_decay.size() == 1 ? a_.weight_decay[0] : a_.weight_decay[i];
    t.seed = uint64_t(a_.seeds.size() == 1 ? a_.seeds[0] : a_.seeds[i]);
    if (!a_.shards.empty()) {
      t.shard_offset = a_.shards[3 * i];
      t.shard_inner = a_.shards[3 * i + 1];
      t.shard_stride = a_.shards[3 * i + 2];
    }
  }

  // An empty tensor stands for "none for this param", so that lists may mix params that need a residual with others.
  void residual(size_t i, const TensorInfo& param, TensorArgs& t) {
    const auto index = int64_t(i);
    TensorInfo info = describe(a_.residuals[i]);
    if (info.numel == 0) return;
    info = like_param("residuals", i, a_.residuals[i], param);
    if (call_.common.residual == ResidualKind::kLowBits) return low_bits(i, info, t);
    if (item_size(t.param_dtype) != 2) {
      refuse(check_.op(), "residuals[", i, "] is given for a param of dtype ", dtype_name(param),
             ", expected an empty tensor (only bfloat16 and float16 params have a residual)");
    }
    t.residual_dtype = check_.dtype("residuals", index, info, false);
    const DType expected = call_.common.residual == ResidualKind::kMaster ? DType::kFloat32 : t.param_dtype;
    if (t.residual_dtype != expected) {
      refuse(check_.op(), "residuals[", i, "] has dtype ", dtype_name(info), ", expected ", name(expected));
    }
    t.residual = info.data;
    overlap_.add(info.data, info.numel * item_size(t.residual_dtype), "residuals", index, true);
  }

  void low_bits(size_t i, const TensorInfo& info, TensorArgs& t) {
    if (t.param_dtype != DType::kBFloat16) {
      refuse(check_.op(), "residuals[", i, "] is given for a param of dtype ", name(t.param_dtype),
             ", expected an empty tensor (only bfloat16 params are extended by eight bits)");
    }
    if (info.dtype != aoti_torch_dtype_int8()) {
      refuse(check_.op(), "residuals[", i, "] has dtype ", dtype_name(info), ", expected int8");
    }
    t.residual_dtype = DType::kLowBits;
    t.residual = info.data;
    overlap_.add(info.data, info.numel, "residuals", int64_t(i), true);
  }

  void ema(size_t i, const TensorInfo& param, bool wide, TensorArgs& t) {
    const auto index = int64_t(i);
    if (describe(a_.ema_params[i]).numel == 0) return;
    const TensorInfo info = like_param("ema_params", i, a_.ema_params[i], param);
    t.ema_dtype = check_.dtype("ema_params", index, info, wide);
    t.ema = info.data;
    overlap_.add(info.data, info.numel * item_size(t.ema_dtype), "ema_params", index, true);
  }

  void vectors() {
    CommonArgs& c = call_.common;
    const int64_t steps = int64_t(count_) + 1;
    c.steps = static_cast<float*>(check_.vector("steps", -1, describe(a_.steps.get()), DType::kFloat32, steps));
    overlap_.add(c.steps, steps * 4, "steps", -1, true);
    const int64_t own = rule_.total_count(call_.tensors, c);
    const int64_t totals = own + (a_.perpendicular != 0 ? kPerpendicularTotals * int64_t(count_) : 0);
    c.totals = static_cast<double*>(check_.vector("totals", -1, describe(a_.totals.get()), DType::kFloat64, totals));
    if (a_.perpendicular != 0) c.perpendicular = c.totals + own;
    overlap_.add(c.totals, totals * 8, "totals", -1, true);
    const auto reads = [&](const char* argument, const DeviceScalar& scalar) {
      if (scalar.data == nullptr) return;
      overlap_.add(scalar.data, (scalar.per_tensor ? int64_t(count_) : 1) * item_size(scalar.dtype), argument, -1, false);
    };
    reads("lr_tensor", c.lr);
    reads("weight_decay_tensor", c.weight_decay);
    for (int k = 0; k < rule_.hyper_count; ++k) reads(rule_.hypers[k].name, c.hyper_tensors[k]);
    if (c.grad_scale != nullptr) overlap_.add(c.grad_scale, 4, "grad_scale", -1, false);
    if (c.found_inf != nullptr) overlap_.add(c.found_inf, 4, "found_inf", -1, false);
  }

  const RuleDescription& rule_;
  const Arguments& a_;
  Checker check_;
  size_t count_;
  int reductions_ = 0;
  size_t first_scale_[kMaxStates] = {};  // of each quantised state
  StepCall call_;
  OverlapCheck overlap_;
};

}  // namespace

void step(const RuleDescription& rule, const StableIValue* stack) {
  const Arguments arguments = take(rule, Stack(stack));
  const std::string op = std::string(rule.name) + "_";
  // The device of the first param; of `steps` where the list is empty.
  const TensorInfo first = describe(arguments.params.size() != 0 ? arguments.params[0] : arguments.steps.get());
  const StepCall call = Unpacker(rule, op, arguments, {first.device_type, first.device_index}).unpack();
  if (!call.tensors.empty()) rule.run(op.c_str(), call, first.device_index);
}

}  // namespace momentum::ops
