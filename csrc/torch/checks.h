// Checks shared by the ops. Each refuses with the op, the argument, its place in the list, what was expected and what came.
#pragma once

#include <cstdint>
#include <string>

#include "core/call.h"
#include "torch/error.h"
#include "torch/tensor_info.h"

namespace momentum::ops {

// The device all tensors of a call must share.
struct Device {
  int32_t type, index;
};

// "grads[3]", or "steps" for a single tensor (index -1).
std::string label(const char* argument, int64_t index);

class Checker {
 public:
  Checker(const char* op, Device device) : op_(op), device_(device) {}

  void length(const char* argument, size_t got, size_t expected, const char* unit) const;
  void strided(const char* argument, int64_t index, const TensorInfo& info) const {
    if (!is_strided(info)) refuse_layout(argument, index);
  }
  void device(const char* argument, int64_t index, const TensorInfo& info) const {
    if (info.device_type != device_.type || info.device_index != device_.index) refuse_device(argument, index, info);
  }
  // float32, bfloat16, float16, or float64 where allowed.
  DType dtype(const char* argument, int64_t index, const TensorInfo& info, bool allow_float64) const;
  // Shape and strides of the parameter.
  void like_param(const char* argument, int64_t index, const TensorInfo& info, const TensorInfo& param) const {
    if (!same_shape(info, param) || (param.numel != 0 && !same_strides(info, param)))
      refuse_unlike(argument, index, info, param);
  }
  void dense(const char* argument, int64_t index, const TensorInfo& info) const;
  // A contiguous tensor of `numel` elements of the given dtype.
  void* vector(const char* argument, int64_t index, const TensorInfo& info, DType dtype, int64_t numel) const;
  // `size` contiguous elements of dtype uint8.
  void* bytes(const char* argument, int64_t index, const TensorInfo& info, int64_t size) const;
  // One number, or one per tensor, in float32 or float64.
  DeviceScalar scalar(const char* argument, const TensorInfo& info, int64_t per_tensor) const;
  const float* flag(const char* argument, const TensorInfo& info) const;
  void range(const char* argument, int64_t index, double value, double low, double high, bool high_open) const;

  const char* op() const { return op_; }

 private:
  [[noreturn]] void refuse_layout(const char* argument, int64_t index) const;
  [[noreturn]] void refuse_device(const char* argument, int64_t index, const TensorInfo& info) const;
  [[noreturn]] void refuse_unlike(const char* argument, int64_t index, const TensorInfo& info, const TensorInfo& param) const;

  const char* op_;
  Device device_;
};

}  // namespace momentum::ops
