// What the checks need to know of a tensor, asked for once.
#pragma once

#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/dtype.h"

namespace momentum::ops {

struct TensorInfo {
  int32_t dtype = 0;  // torch's number
  int32_t device_type = 0, device_index = 0;
  int32_t layout = 0;
  int64_t dim = 0, numel = 0;
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;
  void* data = nullptr;
};

// Strides and data are left out for layouts that have none, and the index of the device for CPUs. A step over small tensors
// consists of such calls, so there is none too many.
TensorInfo describe(AtenTensorHandle tensor);

inline bool is_strided(const TensorInfo& info) {
  static const int32_t strided = aoti_torch_layout_strided();
  return info.layout == strided;
}
inline bool is_uint8(const TensorInfo& info) {
  static const int32_t uint8 = aoti_torch_dtype_uint8();
  return info.dtype == uint8;
}
// The storage type, if it is one the kernels know.
std::optional<DType> storage_dtype(const TensorInfo& info);
std::string dtype_name(const TensorInfo& info);
std::string device_name(const TensorInfo& info);
std::string shape_text(const TensorInfo& info);
std::string strides_text(const TensorInfo& info);

// Elements of a row: the tensor as dim 0 x the rest.
int64_t columns(const TensorInfo& info);

inline bool same_shape(const TensorInfo& a, const TensorInfo& b) {
  if (a.dim != b.dim) return false;
  for (int64_t d = 0; d < a.dim; ++d) {
    if (a.sizes[d] != b.sizes[d]) return false;
  }
  return true;
}
// Equal where it matters: strides of dimensions of size 1 address nothing.
inline bool same_strides(const TensorInfo& a, const TensorInfo& b) {
  for (int64_t d = 0; d < a.dim; ++d) {
    if (a.sizes[d] != 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}
bool is_contiguous(const TensorInfo& info);
// Every index of the first dimension has its elements beside each other, in whatever order, and before those of the next.
bool has_rows(const TensorInfo& info);
// Some permutation of the dimensions is contiguous: every element has one place and there are no gaps.
bool is_dense(const TensorInfo& info);

}  // namespace momentum::ops
