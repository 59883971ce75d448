// float64 storage, for float64 parameters only.
#pragma once

#include "core/config.h"
#include "core/dtype.h"

namespace momentum::formats {

struct Float64 {
  static constexpr DType kDType = DType::kFloat64;
  using Storage = double;

  template <class T>
  MOMENTUM_HD static T load(double stored) {
    return T(stored);
  }
  template <class T>
  MOMENTUM_HD static double store(T value) {
    return double(value);
  }
};

}  // namespace momentum::formats
