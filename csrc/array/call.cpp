#include "array/call.h"

#include <string>

#include "array/quantised.h"
#include "array/reader.h"

namespace py = pybind11;

namespace momentum::array {
namespace {

constexpr Range kAnyNumber{0.0, 1e300};

class Builder {
 public:
  Builder(const Rule& rule, const py::dict& arguments) : rule_(rule), read_(rule.name, arguments) {}

  PreparedCall build(int64_t count) {
    call_.step.tensors.resize(count, TensorArgs{});
    read_params();
    read_grads();
    read_states();
    read_frame();
    read_hypers();
    read_vectors();
    read_.check_overlap();
    call_.device = read_.device();
    return std::move(call_);
  }

 private:
  int64_t count() const { return int64_t(call_.step.tensors.size()); }

  // Keeps the memory of an array alive, and returns it.
  void* keep(Array array) {
    call_.arrays.push_back(std::move(array));
    return call_.arrays.back().data;
  }

  void read_params() {
    std::vector<Array> arrays = read_.arrays("params", count(), false, true);
    for (size_t i = 0; i < arrays.size(); ++i) {
      TensorArgs& t = call_.step.tensors[i];
      t.param_dtype = read_.storage(label("params", i), arrays[i], true);
      t.numel = arrays[i].numel;
      t.rows = arrays[i].rows();
      t.cols = arrays[i].cols();
      if (rule_.matrices_only && arrays[i].shape.size() < 2) {
        t.rows = 0;
        t.cols = t.numel;
      }
      shapes_.push_back(arrays[i].shape);
      t.param = keep(std::move(arrays[i]));
    }
  }

  void expect_shape_of_param(size_t i, const std::string& name, const Array& array) const {
    if (array.shape == shapes_[i]) return;
    read_.refuse(name, ": expected shape ", shape_name(shapes_[i]), " as params[", i, "], got ", shape_name(array.shape));
  }

  // The dtype of an array of the shape of its parameter.
  DType like_param(size_t i, const std::string& name, const Array& array) const {
    const DType dtype = read_.storage(name, array, true);
    const DType param = call_.step.tensors[i].param_dtype;
    if (dtype == DType::kFloat64 && param != DType::kFloat64) {
      read_.refuse(name, ": float64 goes with float64 params only, params[", i, "] is ", momentum::name(param));
    }
    expect_shape_of_param(i, name, array);
    return dtype;
  }

  void read_grads() {
    std::vector<Array> arrays = read_.arrays("grads", count(), false, false);
    for (size_t i = 0; i < arrays.size(); ++i) {
      TensorArgs& t = call_.step.tensors[i];
      t.grad_dtype = like_param(i, label("grads", i), arrays[i]);
      t.grad = keep(std::move(arrays[i]));
    }
  }

  void read_states() {
    const QuantisedStates quantised(rule_, read_, count());
    for (const Array& scales : quantised.scales()) keep(scales);
    for (size_t k = 0; k < rule_.states.size(); ++k) {
      call_.step.common.state_formats[k] = quantised.format(int(k));
      read_state(int(k), quantised);
    }
  }

  // In a list that may be left out, an empty array leaves out the state of one parameter.
  void read_state(int k, const QuantisedStates& quantised) {
    const StateInfo& state = rule_.states[size_t(k)];
    std::vector<Array> arrays = read_.arrays(state.name, count(), state.optional, true);
    for (size_t i = 0; i < arrays.size(); ++i) {
      const std::string name = label(state.name, i);
      TensorArgs& t = call_.step.tensors[i];
      if (is_byte(arrays[i].dtype, dlpack::kUInt)) {
        quantised.use_codes(k, i, name, arrays[i], t);
        keep(std::move(arrays[i]));
        continue;
      }
      const bool left_out = arrays[i].numel == 0 && state.optional;
      if (!left_out) t.state_dtypes[k] = like_param(i, name, arrays[i]);
      quantised.expect_no_scales(k, i);
      if (!left_out) t.states[k] = keep(std::move(arrays[i]));
    }
  }

  void read_frame() {
    CommonArgs& common = call_.step.common;
    common.residual = ResidualKind(read_.integer("residual", {0, 3}));
    common.rounding = Rounding(read_.integer("rounding", {0, 1}));
    common.cautious = Cautious(read_.integer("cautious", {0, 2}));
    common.decay = DecayMode(read_.integer("decay", {0, 5}));
    common.maximize = read_.integer("maximize", {0, 1}) != 0;
    perpendicular_ = read_.integer("perpendicular", {0, 2});
    common.renormalize = perpendicular_ == 2;
    common.max_lr = read_.number("max_lr", kAnyNumber);
    common.ema_decay = read_.number("ema_decay", {0.0, 1.0, true});
    if (common.decay == DecayMode::kLrDecoupled && common.max_lr == 0)
      read_.refuse("max_lr: is 0, expected the largest lr (> 0)");
    if (common.residual == ResidualKind::kKahan && common.rounding == Rounding::kStochastic) {
      read_.refuse("rounding: is STOCHASTIC while residual is KAHAN, which keeps what rounding loses");
    }
    const std::vector<double> lr = read_.numbers("lr", count(), kAnyNumber);
    const std::vector<double> weight_decay = read_.numbers("weight_decay", count(), kAnyNumber);
    const std::vector<uint64_t> seeds = read_.seeds("seeds", count());
    for (int64_t i = 0; i < count(); ++i) {
      TensorArgs& t = call_.step.tensors[i];
      t.lr = lr[i];
      t.weight_decay = weight_decay[i];
      t.seed = seeds[i];
      if (common.decay == DecayMode::kNone && weight_decay[i] != 0) {
        read_.refuse("weight_decay: ", weight_decay[i], " would have no effect with decay NONE");
      }
    }
    read_residuals();
    read_averages();
  }

  // An empty array stands for "none for this param".
  void read_residuals() {
    const ResidualKind kind = call_.step.common.residual;
    const size_t length = read_.length("residuals");
    if (kind == ResidualKind::kNone && length > 0) read_.refuse("residuals: expected none with residual NONE, got ", length);
    if (kind != ResidualKind::kNone && length == 0 && count() > 0)
      read_.refuse("residuals: expected ", count(), " arrays, got none");
    std::vector<Array> arrays = read_.arrays("residuals", count(), true, true);
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (arrays[i].numel == 0) continue;
      TensorArgs& t = call_.step.tensors[i];
      t.residual_dtype = residual_dtype(kind, label("residuals", i), arrays[i], t);
      expect_shape_of_param(i, label("residuals", i), arrays[i]);
      t.residual = keep(std::move(arrays[i]));
    }
  }

  DType residual_dtype(ResidualKind kind, const std::string& name, const Array& array, const TensorArgs& t) const {
    if (kind == ResidualKind::kLowBits) {
      if (t.param_dtype != DType::kBFloat16) {
        read_.refuse(name, ": only bfloat16 params are extended by eight bits, got ", momentum::name(t.param_dtype));
      }
      if (!is_byte(array.dtype, dlpack::kInt)) read_.refuse(name, ": expected int8, got ", dtype_name(array.dtype));
      return DType::kLowBits;
    }
    if (item_size(t.param_dtype) != 2) {
      read_.refuse(name, ": only bfloat16 and float16 params have one, got ", momentum::name(t.param_dtype));
    }
    const DType expected = kind == ResidualKind::kKahan ? t.param_dtype : DType::kFloat32;
    if (storage_dtype(array.dtype) != expected) {
      read_.refuse(name, ": expected ", momentum::name(expected), ", got ", dtype_name(array.dtype));
    }
    return expected;
  }

  // As with residuals, an empty array is none.
  void read_averages() {
    std::vector<Array> arrays = read_.arrays("ema_params", count(), true, true);
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (arrays[i].numel == 0) continue;
      TensorArgs& t = call_.step.tensors[i];
      t.ema_dtype = like_param(i, label("ema_params", i), arrays[i]);
      t.ema = keep(std::move(arrays[i]));
    }
  }

  void read_hypers() {
    CommonArgs& common = call_.step.common;
    for (size_t k = 0; k < rule_.hypers.size(); ++k) {
      const HyperInfo& hyper = rule_.hypers[k];
      const Range range{hyper.low, hyper.high, hyper.high_open};
      const bool is_float = hyper.kind == HyperKind::kFloat;
      common.hypers[k] = is_float ? read_.number(hyper.name, range) : double(read_.integer(hyper.name, range));
      if (hyper.tensor) common.hyper_tensors[k] = device_scalar(std::string(hyper.name) + "_tensor", false);
      common.device_hypers |= common.hyper_tensors[k].data != nullptr;
    }
    common.lr = device_scalar("lr_tensor", true);
    common.weight_decay = device_scalar("weight_decay_tensor", true);
    common.grad_scale = float_scalar("grad_scale");
    common.found_inf = float_scalar("found_inf");
  }

  DeviceScalar device_scalar(const std::string& name, bool may_be_per_tensor) {
    if (!read_.given(name)) return {};
    Array array = read_.array(name, false);
    const DType dtype = read_.storage(name, array, true);
    if (item_size(dtype) == 2) read_.refuse(name, ": expected float32 or float64, got ", momentum::name(dtype));
    const bool per_tensor = may_be_per_tensor && array.shape.size() == 1 && array.numel == count();
    if (!per_tensor && array.numel != 1) read_.refuse(name, ": expected one number, got shape ", shape_name(array.shape));
    return {keep(std::move(array)), dtype, per_tensor};
  }

  const float* float_scalar(const std::string& name) {
    return read_.given(name) ? static_cast<const float*>(vector(name, DType::kFloat32, 1, false)) : nullptr;
  }

  void* vector(const std::string& name, DType dtype, int64_t numel, bool written) {
    Array array = read_.array(name, written);
    read_.expect_vector(name, array, dtype, numel);
    return keep(std::move(array));
  }

  void read_vectors() {
    CommonArgs& common = call_.step.common;
    common.steps = static_cast<float*>(vector("steps", DType::kFloat32, count() + 1, true));
    std::vector<Array> scalars = read_.arrays("scalars", rule_.scalars > 0 ? count() : 0, false, true);
    for (size_t i = 0; i < scalars.size(); ++i) {
      read_.expect_vector(label("scalars", i), scalars[i], DType::kFloat32, rule_.scalars);
      call_.step.tensors[i].scalars = static_cast<float*>(keep(std::move(scalars[i])));
    }
    const int64_t own = rule_.totals(call_.step.tensors, common);
    const int64_t totals = own + (perpendicular_ != 0 ? kPerpendicularTotals * count() : 0);
    if (read_.given("totals")) {
      common.totals = static_cast<double*>(vector("totals", DType::kFloat64, totals, true));
    } else if (read_.device().type == dlpack::kCpu) {
      call_.workspace.resize(totals);
      common.totals = call_.workspace.data();
    } else if (totals > 0) {
      read_.refuse("totals: this step reduces, and needs float64 with ", totals, " elements on the device");
    }
    if (perpendicular_ != 0) common.perpendicular = common.totals + own;
  }

  const Rule& rule_;
  Reader read_;
  PreparedCall call_;
  std::vector<std::vector<int64_t>> shapes_;
  int64_t perpendicular_ = 0;
};

}  // namespace

PreparedCall prepare(const Rule& rule, const py::dict& arguments) {
  return Builder(rule, arguments).build(int64_t(py::len(arguments["params"])));
}

}  // namespace momentum::array
