// From Python arguments to a checked call.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "array/array.h"
#include "array/rule.h"

namespace momentum::array {

struct PreparedCall {
  StepCall step;
  dlpack::Device device{dlpack::kCpu, 0};
  std::vector<Array> arrays;      // keep the memory of `step` alive
  std::vector<double> workspace;  // the totals, where the caller gave none
};

// Reads `arguments` by the names of the op's schema, every one of which must be there, and throws ValueError or TypeError
// before anything is written where one is not as the op needs it.
PreparedCall prepare(const Rule& rule, const pybind11::dict& arguments);

}  // namespace momentum::array
