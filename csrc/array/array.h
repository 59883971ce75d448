// A borrowed view of anything with __dlpack__.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "array/dlpack.h"
#include "core/dtype.h"

namespace momentum::array {

struct Array {
  void* data = nullptr;
  dlpack::Device device{};
  dlpack::DataType dtype{};
  std::vector<int64_t> shape;
  int64_t numel = 1;
  bool contiguous = true;  // in C order
  bool read_only = false;
  // Keeps the memory alive. The capsule is not consumed: its own destructor releases the array.
  pybind11::object capsule;

  bool on_cuda() const { return device.type == dlpack::kCuda; }
  // As dim 0 x the rest.
  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const;
};

// Throws TypeError where `object` is no array on the CPU or a CUDA device; `name` is how messages call it.
Array borrow(pybind11::handle object, const std::string& name);

// The storage type, if it is one of the floating point ones the kernels know.
std::optional<DType> storage_dtype(dlpack::DataType dtype);
bool is_byte(dlpack::DataType dtype, dlpack::TypeCode code);  // uint8 or int8
std::string dtype_name(dlpack::DataType dtype);
std::string shape_name(const std::vector<int64_t>& shape);

}  // namespace momentum::array
