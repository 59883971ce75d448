#include "problem.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/formats/formats.h"
#include "core/philox.h"

namespace momentum::sanitizers {

namespace {

// Around the widths of vectors, warps, tiles, chunks and pieces; rows and columns both short and long.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{0, 3},  {1, 1},   {3, 1},   {1, 4},   {5, 1},    {127, 1},  {16, 8},
                                                   {3, 43}, {33, 31}, {5, 205}, {4, 256}, {1, 8191}, {2731, 3}, {2, 8200}};

constexpr DType kNarrow[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

DType param_dtype(Formats formats, size_t tensor) {
  switch (formats) {
    case Formats::kSingle:
      return DType::kFloat32;
    case Formats::kMixed:
      return kNarrow[(tensor + 1) % 3];
    case Formats::kDouble:
      return tensor % 2 == 0 ? DType::kFloat64 : DType::kFloat32;
  }
  return DType::kFloat32;
}

DType stream_dtype(Formats formats, size_t tensor, size_t stream) {
  if (formats == Formats::kSingle) return DType::kFloat32;
  const bool with_double = formats == Formats::kDouble && tensor % 2 == 0;
  if (with_double && (tensor / 2 + stream) % 2 == 0) return DType::kFloat64;
  return kNarrow[(tensor / 3 + stream) % 3];
}

// Evenly spread in [low, high), in eighths: the same in every format, and of parameters and gradients every sum and sum of
// products is exact in float, in whatever order.
double draw(uint64_t stream, uint32_t step, int64_t i, double low, double high) {
  const double value = low + (high - low) * (philox_word(stream, step, uint64_t(i)) / 4294967296.0);
  return std::floor(value * 8) / 8;
}

}  // namespace

Stream::Stream(std::string name, DType dtype, int64_t numel, int64_t offset)
    : name_(std::move(name)),
      dtype_(dtype),
      numel_(numel),
      offset_(offset),
      memory_(std::make_unique<unsigned char[]>(size_t((offset + numel) * item_size(dtype)))) {}

double Stream::get(int64_t i) const {
  if (dtype_ == DType::kLowBits) return static_cast<const int8_t*>(data())[i];
  if (dtype_ == DType::kCodes) return static_cast<const uint8_t*>(data())[i];
  return formats::with_format(dtype_, [&](auto format) {
    using Format = decltype(format);
    return Format::template load<double>(static_cast<const typename Format::Storage*>(data())[i]);
  });
}

void Stream::set(int64_t i, double value) {
  if (item_size(dtype_) == 1) {
    static_cast<uint8_t*>(data())[i] = uint8_t(int(value));
    return;
  }
  formats::with_format(dtype_, [&](auto format) {
    using Format = decltype(format);
    static_cast<typename Format::Storage*>(data())[i] = Format::template store<double>(value);
  });
}

Problem::Problem(const Subject& subject, const Scenario& scenario, int variant) {
  choose_numbers(subject, scenario, variant);
  for (const auto& [rows, cols] : kShapes) add_tensor(subject, scenario, rows, cols);
  // Most of the tiny ones are empty: they take their place in a table, and next to no time.
  for (int i = 0; i < scenario.tiny_tensors; ++i) add_tensor(subject, scenario, i % 7 == 0 ? 1 + i % 3 : 0, 1 + i % 5);

  CommonArgs& common = call_.common;
  const size_t count = call_.tensors.size();
  common.steps = static_cast<float*>(add_stream("steps", DType::kFloat32, int64_t(count) + 1, 0, 0, 0));
  const int64_t own = subject.total_count(call_.tensors, common);
  const bool perpendicular = scenario.perpendicular && subject.has_map;
  const int64_t totals = own + (perpendicular ? kPerpendicularTotals * int64_t(count) : 0);
  common.totals = static_cast<double*>(add_stream("totals", DType::kFloat64, totals, 0, 0, 0));
  if (perpendicular) common.perpendicular = common.totals + own;
  common.renormalize = true;
  if (scenario.device_scalars) {
    for (const TensorArgs& t : call_.tensors) {
      device_lr_.push_back(t.lr);
      device_weight_decay_.push_back(float(t.weight_decay));
    }
    common.lr = {device_lr_.data(), DType::kFloat64, true};
    common.weight_decay = {device_weight_decay_.data(), DType::kFloat32, true};
  }
  call_.stage = subject.has_map ? kWholeStep : 0;
}

void Problem::choose_numbers(const Subject& subject, const Scenario& scenario, int variant) {
  CommonArgs& common = call_.common;
  common.max_lr = 0.02;
  common.ema_decay = scenario.ema ? 0.9 : 0.0;
  common.decay = scenario.decay;
  common.cautious = subject.has_map ? scenario.cautious : Cautious::kOff;
  common.residual = scenario.residual;
  common.rounding = scenario.rounding;
  common.maximize = scenario.maximize;
  common.grad_scale = scenario.grad_scale ? &grad_scale_ : nullptr;
  found_inf_ = scenario.found_inf ? 1 : 0;
  common.found_inf = &found_inf_;
  reductions_ = subject.reduction_count + (common.cautious == Cautious::kRescaled ? 1 : 0);

  for (int k = 0; k < kMaxStates && scenario.quantised(); ++k) {
    StateFormat& format = common.state_formats[k];
    format.map = k == 0 ? scenario.signed_map : scenario.unsigned_map;
    format.block = scenario.block;
    format.scaling = scenario.scaling;
    format.stochastic = scenario.stochastic_codes;
  }

  device_numbers_.resize(size_t(subject.hyper_count));
  for (int k = 0; k < subject.hyper_count; ++k) {
    const HyperInfo& hyper = subject.hypers[k];
    double value = hyper.value;
    // Switches and small choices take turns; intervals and lengths of schedules end within the steps that are run.
    const bool choice = hyper.kind != HyperKind::kFloat && hyper.high - hyper.low < 8;
    if (choice) value = hyper.low + variant % int(hyper.high - hyper.low + 1);
    if (hyper.kind == HyperKind::kInt && !choice) value = std::min(value, 2.0);
    common.hypers[k] = value;
    if (!scenario.device_scalars || !hyper.tensor) continue;
    device_numbers_[size_t(k)] = value;
    common.hyper_tensors[k] = {&device_numbers_[size_t(k)], DType::kFloat64, false};
    common.device_hypers = true;
  }
}

void* Problem::add_stream(std::string name, DType dtype, int64_t numel, int64_t offset, double low, double high) {
  const uint64_t seed = written_.size();
  Stream& stream = written_.emplace_back(std::move(name), dtype, numel, offset);
  for (int64_t i = 0; i < numel; ++i) stream.set(i, draw(seed, 0, i, low, high));
  return stream.data();
}

void Problem::add_tensor(const Subject& subject, const Scenario& scenario, int64_t rows, int64_t cols) {
  const size_t index = call_.tensors.size();
  const std::string place = "[" + std::to_string(index) + "]";
  TensorArgs& t = call_.tensors.emplace_back(TensorArgs{});
  t.rows = rows;
  t.cols = rows > 0 ? cols : 0;
  t.numel = rows * cols;
  if (subject.matrices_only && cols == 1) {  // a vector
    t.rows = 0;
    t.cols = t.numel;
  }
  t.lr = 0.01 + 0.001 * double(index % 3);
  t.weight_decay = scenario.decay == DecayMode::kNone ? 0 : 0.1 * double(index % 2);
  t.seed = 17 + index;
  size_t streams = 0;
  const auto offset = [&] { return scenario.misaligned ? int64_t((index + streams) % 4) : 0; };
  const auto add = [&](const char* name, DType dtype, double low, double high) {
    void* data = add_stream(name + place, dtype, t.numel, offset(), low, high);
    ++streams;
    return data;
  };

  t.param_dtype = param_dtype(scenario.formats, index);
  t.param = add("param", t.param_dtype, -2, 2);
  t.grad_dtype = stream_dtype(scenario.formats, index, streams);
  Stream& grad = grads_.emplace_back("grad" + place, t.grad_dtype, t.numel, offset());
  t.grad = grad.data();
  const int states = scenario.optional_states ? subject.state_count : subject.required_state_count;
  for (int k = 0; k < states; ++k) {
    if (scenario.quantised() && t.numel > 100 && t.param_dtype != DType::kFloat64) {
      const StateFormat& format = call_.common.state_formats[k];
      t.state_dtypes[k] = DType::kCodes;
      // Any codes but those of NaN and, in bytes, of second moments near zero: where a gradient is zero, the step would be
      // larger than float16 numbers are.
      const double least = k > 0 && formats::code_bits(format.map) == 8 ? 48 : 0;
      t.states[k] = add_stream("codes" + place, DType::kCodes, formats::code_bytes(format.map, t.numel), offset(), least, 112);
      t.scales[k] = add_stream("scales" + place, DType::kFloat32, scale_count(format, t.numel, t.rows, t.cols), 0, 0.125, 1);
      streams += 2;
      continue;
    }
    t.state_dtypes[k] = stream_dtype(scenario.formats, index, streams);
    // Only the first state may be negative: the others are second moments, or larger than some.
    t.states[k] = add("state", t.state_dtypes[k], k == 0 ? -0.5 : 0.25 * k, 0.25 * (k + 1));
  }
  if (scenario.residual == ResidualKind::kLowBits) {
    if (t.param_dtype == DType::kBFloat16) {
      t.residual_dtype = DType::kLowBits;
      t.residual = add("low bits", DType::kLowBits, 0, 100);
    }
  } else if (scenario.residual != ResidualKind::kNone && item_size(t.param_dtype) == 2) {
    const bool master = scenario.residual == ResidualKind::kMaster;
    t.residual_dtype = master ? DType::kFloat32 : t.param_dtype;
    t.residual = add("residual", t.residual_dtype, master ? -2 : -1e-3, master ? 2 : 1e-3);
  }
  if (scenario.ema && index % 4 != 3) {
    t.ema_dtype = stream_dtype(scenario.formats, index, streams);
    t.ema = add("ema", t.ema_dtype, -2, 2);
  }
  if (subject.scalar_count > 0) {
    t.scalars = static_cast<float*>(add_stream("scalars" + place, DType::kFloat32, subject.scalar_count, 0, 0, 0));
  }
  if (scenario.sharded) {
    t.shard_offset = 5 * int64_t(index);
    t.shard_inner = index % 3 == 0 ? 0 : t.cols;
    t.shard_stride = index % 3 == 0 ? 0 : 2 * t.cols + 1;
  }
}

void Problem::draw_gradients(int step) {
  uint64_t seed = 1000000;
  for (Stream& grad : grads_) {
    ++seed;
    for (int64_t i = 0; i < grad.numel(); ++i) grad.set(i, i % 11 == 3 ? 0.0 : draw(seed, uint32_t(step), i, -1, 1));
  }
}

}  // namespace momentum::sanitizers
