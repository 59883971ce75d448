#include "torch/tensor_info.h"

#include <algorithm>
#include <sstream>
#include <vector>

namespace momentum::ops {
namespace {

struct Dtype {
  int32_t number;
  const char* name;
};

const std::vector<Dtype>& known_dtypes() {
  static const std::vector<Dtype> dtypes = {
      {aoti_torch_dtype_float32(), "float32"},
      {aoti_torch_dtype_bfloat16(), "bfloat16"},
      {aoti_torch_dtype_float16(), "float16"},
      {aoti_torch_dtype_float64(), "float64"},
      {aoti_torch_dtype_uint8(), "uint8"},
      {aoti_torch_dtype_int8(), "int8"},
      {aoti_torch_dtype_int16(), "int16"},
      {aoti_torch_dtype_int32(), "int32"},
      {aoti_torch_dtype_int64(), "int64"},
      {aoti_torch_dtype_bool(), "bool"},
      {aoti_torch_dtype_complex64(), "complex64"},
      {aoti_torch_dtype_complex128(), "complex128"},
      {aoti_torch_dtype_complex32(), "complex32"},
      {aoti_torch_dtype_float8_e4m3fn(), "float8_e4m3fn"},
      {aoti_torch_dtype_float8_e5m2(), "float8_e5m2"},
  };
  return dtypes;
}

std::string list_text(const int64_t* values, int64_t count) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < count; ++i) text << (i == 0 ? "" : ", ") << values[i];
  text << ']';
  return text.str();
}

}  // namespace

TensorInfo describe(AtenTensorHandle tensor) {
  TensorInfo info;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor, &info.dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor, &info.device_type));
  static const int32_t cpu = aoti_torch_device_type_cpu();
  if (info.device_type != cpu) TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor, &info.device_index));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor, &info.layout));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &info.dim));
  int64_t* numbers = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &numbers));
  info.sizes = numbers;
  info.numel = 1;
  for (int64_t d = 0; d < info.dim; ++d) info.numel *= numbers[d];
  if (!is_strided(info)) return info;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &numbers));
  info.strides = numbers;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor, &info.data));
  return info;
}

std::optional<DType> storage_dtype(const TensorInfo& info) {
  static const int32_t float32 = aoti_torch_dtype_float32(), bfloat16 = aoti_torch_dtype_bfloat16(),
                       float16 = aoti_torch_dtype_float16(), float64 = aoti_torch_dtype_float64();
  if (info.dtype == float32) return DType::kFloat32;
  if (info.dtype == bfloat16) return DType::kBFloat16;
  if (info.dtype == float16) return DType::kFloat16;
  if (info.dtype == float64) return DType::kFloat64;
  return std::nullopt;
}

std::string dtype_name(const TensorInfo& info) {
  for (const Dtype& dtype : known_dtypes()) {
    if (dtype.number == info.dtype) return dtype.name;
  }
  return "dtype " + std::to_string(info.dtype);
}

std::string device_name(const TensorInfo& info) {
  if (info.device_type == aoti_torch_device_type_cpu()) return "cpu";
  if (info.device_type == aoti_torch_device_type_meta()) return "meta";
  const std::string type =
      info.device_type == aoti_torch_device_type_cuda() ? "cuda" : "device " + std::to_string(info.device_type);
  return type + ":" + std::to_string(info.device_index);
}

std::string shape_text(const TensorInfo& info) { return list_text(info.sizes, info.dim); }
std::string strides_text(const TensorInfo& info) { return list_text(info.strides, info.dim); }

int64_t columns(const TensorInfo& info) {
  int64_t count = 1;
  for (int64_t d = 1; d < info.dim; ++d) count *= info.sizes[d];
  return count;
}

bool is_contiguous(const TensorInfo& info) {
  if (info.numel == 0) return true;
  int64_t expected = 1;
  for (int64_t d = info.dim - 1; d >= 0; --d) {
    if (info.sizes[d] != 1 && info.strides[d] != expected) return false;
    expected *= info.sizes[d];
  }
  return true;
}

bool has_rows(const TensorInfo& info) {
  return info.dim < 2 || info.numel == 0 || (is_dense(info) && (info.sizes[0] == 1 || info.strides[0] == columns(info)));
}

bool is_dense(const TensorInfo& info) {
  if (is_contiguous(info)) return true;
  std::vector<int64_t> order;
  for (int64_t d = 0; d < info.dim; ++d) {
    if (info.sizes[d] != 1) order.push_back(d);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return info.strides[a] < info.strides[b]; });
  int64_t expected = 1;
  for (const int64_t d : order) {
    if (info.strides[d] != expected) return false;
    expected *= info.sizes[d];
  }
  return true;
}

}  // namespace momentum::ops
