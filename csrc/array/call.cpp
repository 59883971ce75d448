#include "array/call.h"

#include <optional>
#include <string>

#include "array/reader.h"

namespace py = pybind11;

namespace momentum::array {
namespace {

constexpr Range kAnyNumber{0.0, 1e300};

std::optional<DType> storage_dtype(dlpack::DataType dtype) {
  if (dtype.lanes != 1) return std::nullopt;
  if (dtype.code == dlpack::kBFloat && dtype.bits == 16) return DType::kBFloat16;
  if (dtype.code != dlpack::kFloat) return std::nullopt;
  switch (dtype.bits) {
    case 16:
      return DType::kFloat16;
    case 32:
      return DType::kFloat32;
    case 64:
      return DType::kFloat64;
    default:
      return std::nullopt;
  }
}

class Builder {
 public:
  Builder(const Rule& rule, const py::dict& arguments) : rule_(rule), read_(rule.name, arguments) {}

  PreparedCall build(int64_t count) {
    call_.step.tensors.resize(count);
    read_params();
    read_streams("grads", false, false, [](TensorArgs& t, void* data, DType dtype) {
      t.grad = data;
      t.grad_dtype = dtype;
    });
    for (size_t k = 0; k < rule_.states.size(); ++k) {
      read_streams(rule_.states[k].name, rule_.states[k].optional, true, [k](TensorArgs& t, void* data, DType dtype) {
        t.states[k] = data;
        t.state_dtypes[k] = dtype;
      });
    }
    read_frame();
    read_hypers();
    read_vectors();
    read_.check_overlap();
    call_.device = read_.device();
    return std::move(call_);
  }

 private:
  int64_t count() const { return int64_t(call_.step.tensors.size()); }

  DType storage(const Array& array, const std::string& name) const {
    const auto dtype = storage_dtype(array.dtype);
    if (!dtype) {
      read_.refuse(name, ": expected float32, bfloat16, float16 or float64, got ", dtype_name(array.dtype));
    }
    return *dtype;
  }

  void read_params() {
    std::vector<Array> arrays = read_.arrays("params", count(), false, true);
    for (int64_t i = 0; i < count(); ++i) {
      TensorArgs& t = call_.step.tensors[i];
      const std::vector<int64_t>& shape = arrays[i].shape;
      t.param = arrays[i].data;
      t.param_dtype = storage(arrays[i], "params[" + std::to_string(i) + "]");
      t.numel = arrays[i].numel;
      t.rows = shape.empty() ? 1 : shape[0];
      t.cols = 1;
      for (size_t d = 1; d < shape.size(); ++d) t.cols *= shape[d];
      if (rule_.matrices_only && shape.size() < 2) {
        t.rows = 0;
        t.cols = t.numel;
      }
      shapes_.push_back(shape);
      call_.arrays.push_back(std::move(arrays[i]));
    }
  }

  // One array for each parameter, of its shape. In a list that may be left out, an empty array leaves out one.
  template <class Assign>
  void read_streams(const std::string& name, bool optional, bool written, Assign assign) {
    std::vector<Array> arrays = read_.arrays(name, count(), optional, written);
    for (size_t i = 0; i < arrays.size(); ++i) {
      const std::string label = name + "[" + std::to_string(i) + "]";
      TensorArgs& t = call_.step.tensors[i];
      if (arrays[i].numel == 0 && optional) continue;
      const DType dtype = storage(arrays[i], label);
      if (dtype == DType::kFloat64 && t.param_dtype != DType::kFloat64) {
        read_.refuse(label, ": float64 goes with float64 params only, params[", i, "] is ", momentum::name(t.param_dtype));
      }
      if (arrays[i].shape != shapes_[i]) {
        read_.refuse(label, ": expected shape ", shape_name(shapes_[i]), " as params[", i, "], got ",
                     shape_name(arrays[i].shape));
      }
      assign(t, arrays[i].data, dtype);
      call_.arrays.push_back(std::move(arrays[i]));
    }
  }

  void read_frame() {
    CommonArgs& common = call_.step.common;
    common.residual = ResidualKind(read_.integer("residual", {0, 2}));
    common.rounding = Rounding(read_.integer("rounding", {0, 1}));
    common.cautious = Cautious(read_.integer("cautious", {0, 2}));
    common.decay = DecayMode(read_.integer("decay", {0, 5}));
    common.maximize = read_.integer("maximize", {0, 1}) != 0;
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
    read_streams("ema_params", true, true, [](TensorArgs& t, void* data, DType dtype) {
      t.ema = data;
      t.ema_dtype = dtype;
    });
  }

  void read_residuals() {
    const ResidualKind kind = call_.step.common.residual;
    const size_t length = read_.length("residuals");
    if (kind == ResidualKind::kNone && length > 0) read_.refuse("residuals: expected none with residual NONE, got ", length);
    if (kind != ResidualKind::kNone && length == 0 && count() > 0)
      read_.refuse("residuals: expected ", count(), " arrays, got none");
    read_streams("residuals", true, true, [&](TensorArgs& t, void* data, DType dtype) {
      const DType expected = kind == ResidualKind::kKahan ? t.param_dtype : DType::kFloat32;
      if (dtype != expected) read_.refuse("residuals: expected ", momentum::name(expected), ", got ", momentum::name(dtype));
      if (item_size(t.param_dtype) != 2) {
        read_.refuse("residuals: only bfloat16 and float16 params have one, got ", momentum::name(t.param_dtype));
      }
      t.residual = data;
      t.residual_dtype = dtype;
    });
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
    const DType dtype = storage(array, name);
    if (item_size(dtype) == 2) read_.refuse(name, ": expected float32 or float64, got ", momentum::name(dtype));
    const bool per_tensor = may_be_per_tensor && array.shape.size() == 1 && array.numel == count();
    if (!per_tensor && array.numel != 1) read_.refuse(name, ": expected one number, got shape ", shape_name(array.shape));
    DeviceScalar scalar{array.data, dtype, per_tensor};
    call_.arrays.push_back(std::move(array));
    return scalar;
  }

  const float* float_scalar(const std::string& name) {
    return read_.given(name) ? static_cast<const float*>(vector(name, DType::kFloat32, 1, false)) : nullptr;
  }

  // A contiguous array of exactly `numel` elements, whatever its shape.
  void* vector(const std::string& name, DType dtype, int64_t numel, bool written) {
    Array array = read_.array(name, written);
    if (storage_dtype(array.dtype) != dtype || array.numel != numel) {
      read_.refuse(name, ": expected ", momentum::name(dtype), " with ", numel, " elements, got ", dtype_name(array.dtype),
                   " with ", array.numel);
    }
    call_.arrays.push_back(std::move(array));
    return call_.arrays.back().data;
  }

  void read_vectors() {
    CommonArgs& common = call_.step.common;
    common.steps = static_cast<float*>(vector("steps", DType::kFloat32, count() + 1, true));
    std::vector<Array> scalars = read_.arrays("scalars", rule_.scalars > 0 ? count() : 0, false, true);
    for (size_t i = 0; i < scalars.size(); ++i) {
      if (storage_dtype(scalars[i].dtype) != DType::kFloat32 || scalars[i].numel != rule_.scalars) {
        read_.refuse("scalars[", i, "]: expected float32 with ", rule_.scalars, " elements, got ", dtype_name(scalars[i].dtype),
                     " with ", scalars[i].numel);
      }
      call_.step.tensors[i].scalars = static_cast<float*>(scalars[i].data);
      call_.arrays.push_back(std::move(scalars[i]));
    }
    const int64_t totals = rule_.totals(call_.step.tensors, common);
    if (read_.given("totals")) {
      common.totals = static_cast<double*>(vector("totals", DType::kFloat64, totals, true));
    } else if (read_.device().type == dlpack::kCpu) {
      call_.workspace.resize(totals);
      common.totals = call_.workspace.data();
    } else if (totals > 0) {
      read_.refuse("totals: this rule reduces, and needs float64 with ", totals, " elements on the device");
    }
  }

  const Rule& rule_;
  Reader read_;
  PreparedCall call_;
  std::vector<std::vector<int64_t>> shapes_;
};

}  // namespace

PreparedCall prepare(const Rule& rule, const py::dict& arguments) {
  return Builder(rule, arguments).build(int64_t(py::len(arguments["params"])));
}

}  // namespace momentum::array
