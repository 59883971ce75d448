#include "torch/step_unpacker.h"

#include <string>
#include <utility>

namespace momentum::ops {
namespace {

constexpr double kUnbounded = 1e300;

int64_t place(const std::vector<double>& values, size_t i) { return values.size() == 1 ? -1 : int64_t(i); }

}  // namespace

StepCall StepUnpacker::unpack(const TensorLoop& loop) {
  lengths();
  numbers();
  options();
  state_formats();
  call_.tensors.resize(count_);
  loop(count_, [this](size_t begin, size_t end) { tensors(begin, end); });
  OverlapCheck others = parts_.part(OverlapParts::kOther);
  vectors(others);
  parts_.add(OverlapParts::kOther, std::move(others));
  parts_.check(check_.op());
  return std::move(call_);
}

void StepUnpacker::tensors(size_t begin, size_t end) {
  OverlapCheck overlap = parts_.part(begin);
  for (size_t i = begin; i < end; ++i) tensor(i, overlap);
  parts_.add(begin, std::move(overlap));
}

void StepUnpacker::lengths() const {
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

int64_t StepUnpacker::integer(const char* argument, int64_t value, int64_t low, int64_t high) const {
  check_.range(argument, -1, double(value), double(low), double(high), false);
  return value;
}

void StepUnpacker::numbers() {
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

void StepUnpacker::options() {
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
  if (c.decay == DecayMode::kLrDecoupled && a_.max_lr == 0) refuse(op, "max_lr is 0, expected the largest learning rate (> 0)");
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

void StepUnpacker::like_param(const char* argument, size_t i, const TensorInfo& info, const TensorInfo& param) const {
  check_.strided(argument, int64_t(i), info);
  check_.device(argument, int64_t(i), info);
  check_.like_param(argument, int64_t(i), info, param);
}

void StepUnpacker::tensor(size_t i, OverlapCheck& overlap) {
  TensorArgs& t = call_.tensors[i] = {};
  const auto index = int64_t(i);
  const TensorInfo& param = a_.params[i];
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
  overlap.add(param.data, param.numel * item_size(t.param_dtype), "params", index, true);

  const TensorInfo& grad = a_.grads[i];
  like_param("grads", i, grad, param);
  t.grad_dtype = check_.dtype("grads", index, grad, wide);
  t.grad = grad.data;
  overlap.add(grad.data, grad.numel * item_size(t.grad_dtype), "grads", index, false);

  for (int k = 0; k < rule_.state_count; ++k) {
    if (!has_state(k)) continue;
    const char* argument = rule_.states[k].name;
    const TensorInfo& state = a_.states[k][i];
    if (is_uint8(state)) {
      quantised_state(k, i, state, param, t, overlap);
      continue;
    }
    like_param(argument, i, state, param);
    t.state_dtypes[k] = check_.dtype(argument, index, state, wide);
    no_scales(k, i);
    t.states[k] = state.data;
    overlap.add(state.data, state.numel * item_size(t.state_dtypes[k]), argument, index, true);
  }
  if (a_.residuals.size() != 0) residual(i, param, t, overlap);
  if (a_.ema_params.size() != 0) ema(i, param, wide, t, overlap);
  if (rule_.scalar_count > 0) {
    const TensorInfo& scalars = a_.scalars[i];
    t.scalars = static_cast<float*>(check_.vector("scalars", index, scalars, DType::kFloat32, rule_.scalar_count));
    overlap.add(t.scalars, scalars.numel * 4, "scalars", index, true);
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
void StepUnpacker::residual(size_t i, const TensorInfo& param, TensorArgs& t, OverlapCheck& overlap) const {
  const auto index = int64_t(i);
  const TensorInfo& info = a_.residuals[i];
  if (info.numel == 0) return;
  like_param("residuals", i, info, param);
  if (call_.common.residual == ResidualKind::kLowBits) return low_bits(i, info, t, overlap);
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
  overlap.add(info.data, info.numel * item_size(t.residual_dtype), "residuals", index, true);
}

void StepUnpacker::low_bits(size_t i, const TensorInfo& info, TensorArgs& t, OverlapCheck& overlap) const {
  if (t.param_dtype != DType::kBFloat16) {
    refuse(check_.op(), "residuals[", i, "] is given for a param of dtype ", name(t.param_dtype),
           ", expected an empty tensor (only bfloat16 params are extended by eight bits)");
  }
  if (info.dtype != aoti_torch_dtype_int8()) {
    refuse(check_.op(), "residuals[", i, "] has dtype ", dtype_name(info), ", expected int8");
  }
  t.residual_dtype = DType::kLowBits;
  t.residual = info.data;
  overlap.add(info.data, info.numel, "residuals", int64_t(i), true);
}

void StepUnpacker::ema(size_t i, const TensorInfo& param, bool wide, TensorArgs& t, OverlapCheck& overlap) const {
  const auto index = int64_t(i);
  const TensorInfo& info = a_.ema_params[i];
  if (info.numel == 0) return;
  like_param("ema_params", i, info, param);
  t.ema_dtype = check_.dtype("ema_params", index, info, wide);
  t.ema = info.data;
  overlap.add(info.data, info.numel * item_size(t.ema_dtype), "ema_params", index, true);
}

void StepUnpacker::vectors(OverlapCheck& overlap) {
  CommonArgs& c = call_.common;
  const int64_t steps = int64_t(count_) + 1;
  c.steps = static_cast<float*>(check_.vector("steps", -1, a_.steps, DType::kFloat32, steps));
  overlap.add(c.steps, steps * 4, "steps", -1, true);
  const int64_t own = rule_.total_count(call_.tensors, c);
  const int64_t totals = own + (a_.perpendicular != 0 ? kPerpendicularTotals * int64_t(count_) : 0);
  c.totals = static_cast<double*>(check_.vector("totals", -1, a_.totals, DType::kFloat64, totals));
  if (a_.perpendicular != 0) c.perpendicular = c.totals + own;
  overlap.add(c.totals, totals * 8, "totals", -1, true);
  const auto reads = [&](const char* argument, const DeviceScalar& scalar) {
    if (scalar.data == nullptr) return;
    overlap.add(scalar.data, (scalar.per_tensor ? int64_t(count_) : 1) * item_size(scalar.dtype), argument, -1, false);
  };
  reads("lr_tensor", c.lr);
  reads("weight_decay_tensor", c.weight_decay);
  for (int k = 0; k < rule_.hyper_count; ++k) reads(rule_.hypers[k].name, c.hyper_tensors[k]);
  if (c.grad_scale != nullptr) overlap.add(c.grad_scale, 4, "grad_scale", -1, false);
  if (c.found_inf != nullptr) overlap.add(c.found_inf, 4, "found_inf", -1, false);
}

}  // namespace momentum::ops
