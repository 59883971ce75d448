// Between a tensor and its quantised form, outside of any step.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/formats/blocks.h"

namespace momentum {

struct Conversion {
  void* values = nullptr;  // floating point; read or written
  DType dtype = DType::kFloat32;
  void* codes = nullptr;
  void* scales = nullptr;
  StateFormat format;
  int64_t numel = 0;
  int64_t rows = 1, cols = 0;  // dim 0 x the rest
  // Stochastic rounding draws the Philox words of (seed, step, element).
  uint64_t seed = 0;
  uint32_t step = 0;
  bool quantise = true;  // otherwise back
};

}  // namespace momentum
