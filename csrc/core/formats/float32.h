// float32 storage: the arithmetic type of every step but those of float64 parameters.
#pragma once

#include "core/config.h"
#include "core/dtype.h"

namespace momentum::formats {

struct Float32 {
  static constexpr DType kDType = DType::kFloat32;
  using Storage = float;

  template <class T>
  MOMENTUM_HD static T load(float stored) {
    return T(stored);
  }
  template <class T>
  MOMENTUM_HD static float store(T value) {
    return float(value);
  }
};

}  // namespace momentum::formats
