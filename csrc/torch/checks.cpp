#include "torch/checks.h"

#include <cmath>

namespace momentum::ops {

std::string label(const char* argument, int64_t index) {
  return index < 0 ? argument : std::string(argument) + "[" + std::to_string(index) + "]";
}

void Checker::length(const char* argument, size_t got, size_t expected, const char* unit) const {
  if (got == expected) return;
  refuse(op_, argument, " has length ", got, ", expected ", expected, " (", unit, ")");
}

void Checker::refuse_layout(const char* argument, int64_t index) const {
  refuse(op_, label(argument, index), " is sparse or has another layout, expected a dense (strided) tensor");
}

void Checker::refuse_device(const char* argument, int64_t index, const TensorInfo& info) const {
  TensorInfo expected;
  expected.device_type = device_.type;
  expected.device_index = device_.index;
  refuse(op_, label(argument, index), " is on ", device_name(info), ", expected ", device_name(expected));
}

DType Checker::dtype(const char* argument, int64_t index, const TensorInfo& info, bool allow_float64) const {
  const std::optional<DType> dtype = storage_dtype(info);
  if (dtype && (allow_float64 || *dtype != DType::kFloat64)) return *dtype;
  refuse(op_, label(argument, index), " has dtype ", dtype_name(info), ", expected float32, bfloat16 or float16",
         allow_float64 ? ", or float64" : " (float64 goes with float64 params only)");
}

void Checker::refuse_unlike(const char* argument, int64_t index, const TensorInfo& info, const TensorInfo& param) const {
  if (!same_shape(info, param)) {
    refuse(op_, label(argument, index), " has shape ", shape_text(info), ", expected ", shape_text(param), " like params[",
           index, "]");
  }
  refuse(op_, label(argument, index), " has strides ", strides_text(info), ", expected ", strides_text(param), " like params[",
         index, "]");
}

void Checker::dense(const char* argument, int64_t index, const TensorInfo& info) const {
  if (is_dense(info)) return;
  refuse(op_, label(argument, index), " has shape ", shape_text(info), " and strides ", strides_text(info),
         ", expected a non-overlapping tensor without gaps");
}

void* Checker::vector(const char* argument, int64_t index, const TensorInfo& info, DType dtype, int64_t numel) const {
  strided(argument, index, info);
  device(argument, index, info);
  const std::optional<DType> got = storage_dtype(info);
  if (!got || *got != dtype) refuse(op_, label(argument, index), " has dtype ", dtype_name(info), ", expected ", name(dtype));
  if (info.numel != numel || !is_contiguous(info)) {
    refuse(op_, label(argument, index), " has shape ", shape_text(info), ", expected ", numel, " contiguous elements");
  }
  return info.data;
}

void* Checker::bytes(const char* argument, int64_t index, const TensorInfo& info, int64_t size) const {
  strided(argument, index, info);
  device(argument, index, info);
  if (!is_uint8(info)) {
    refuse(op_, label(argument, index), " has dtype ", dtype_name(info), ", expected uint8");
  }
  if (info.numel != size || !is_contiguous(info)) {
    refuse(op_, label(argument, index), " has shape ", shape_text(info), ", expected ", size, " contiguous bytes of codes");
  }
  return info.data;
}

DeviceScalar Checker::scalar(const char* argument, const TensorInfo& info, int64_t per_tensor) const {
  strided(argument, -1, info);
  device(argument, -1, info);
  const std::optional<DType> dtype = storage_dtype(info);
  if (!dtype || (*dtype != DType::kFloat32 && *dtype != DType::kFloat64)) {
    refuse(op_, argument, " has dtype ", dtype_name(info), ", expected float32 or float64");
  }
  const bool single = info.numel == 1;
  if (!single && (per_tensor < 0 || info.dim != 1 || info.numel != per_tensor || !is_contiguous(info))) {
    if (per_tensor < 0) refuse(op_, argument, " has shape ", shape_text(info), ", expected one element");
    refuse(op_, argument, " has shape ", shape_text(info), ", expected one element or ", per_tensor, " (one per param)");
  }
  return {info.data, *dtype, !single};
}

const float* Checker::flag(const char* argument, const TensorInfo& info) const {
  return static_cast<const float*>(vector(argument, -1, info, DType::kFloat32, 1));
}

void Checker::range(const char* argument, int64_t index, double value, double low, double high, bool high_open) const {
  const bool inside = value >= low && (high_open ? value < high : value <= high) && std::isfinite(value);
  if (inside) return;
  const auto bound = [](double x) { return std::fabs(x) >= 1e15; };
  if (bound(high) && bound(low)) refuse(op_, label(argument, index), " is ", value, ", expected a finite number");
  if (bound(high)) refuse(op_, label(argument, index), " is ", value, ", expected a finite number >= ", low);
  refuse(op_, label(argument, index), " is ", value, ", expected a number in [", low, ", ", high, high_open ? ")" : "]");
}

}  // namespace momentum::ops
