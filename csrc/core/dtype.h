// Storage types of the streams a step reads and writes.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace momentum {

// kCodes: a state in quantised blocks, described by its StateFormat. kLowBits: the residual that makes bfloat16 one of 24 bits.
enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3, kCodes = 4, kLowBits = 5 };

// Bytes of an element; of codes, those of 8 bits.
MOMENTUM_HD constexpr int item_size(DType dtype) {
  return dtype >= DType::kCodes ? 1 : dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

constexpr const char* name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat64:
      return "float64";
    case DType::kCodes:
      return "uint8";
    case DType::kLowBits:
      return "int8";
  }
  return "unknown";
}

}  // namespace momentum
