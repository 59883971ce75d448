// A borrowed view of anything with __dlpack__.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "array/dlpack.h"

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
};

// Throws TypeError where `object` is no array on the CPU or a CUDA device; `name` is how messages call it.
Array borrow(pybind11::handle object, const std::string& name);

std::string dtype_name(dlpack::DataType dtype);
std::string shape_name(const std::vector<int64_t>& shape);

}  // namespace momentum::array
