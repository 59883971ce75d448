// From Python arguments to a checked conversion between an array and its quantised form.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "array/array.h"
#include "core/conversion.h"

namespace momentum::array {

struct PreparedConversion {
  Conversion conversion;
  dlpack::Device device{dlpack::kCpu, 0};
  std::vector<Array> arrays;  // keep the memory of `conversion` alive
};

// Reads the arguments of quantize_ or dequantize_ by name, every one of which must be there, and throws ValueError or TypeError
// before anything is written where one is not as the op needs it.
PreparedConversion prepare_conversion(bool quantise, const pybind11::dict& arguments);

}  // namespace momentum::array
