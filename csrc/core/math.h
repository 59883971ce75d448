// The few scalar functions rules may use, the same on host and device, for float and double.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace momentum::math {

MOMENTUM_HD float sqrt(float x) { return __builtin_sqrtf(x); }
MOMENTUM_HD double sqrt(double x) { return __builtin_sqrt(x); }
MOMENTUM_HD float abs(float x) { return __builtin_fabsf(x); }
MOMENTUM_HD double abs(double x) { return __builtin_fabs(x); }
MOMENTUM_HD float copysign(float magnitude, float sign) { return __builtin_copysignf(magnitude, sign); }
MOMENTUM_HD double copysign(double magnitude, double sign) { return __builtin_copysign(magnitude, sign); }
MOMENTUM_HD float expm1(float x) { return __builtin_expm1f(x); }
MOMENTUM_HD double expm1(double x) { return __builtin_expm1(x); }
MOMENTUM_HD float log(float x) { return __builtin_logf(x); }
MOMENTUM_HD double log(double x) { return __builtin_log(x); }

// sin(pi x) and cos(pi x) for x >= 0. On the GPU the functions of these names, because sin and cos themselves keep a table in
// local memory for large arguments.
template <class T>
MOMENTUM_HD T sinpi(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    return ::sinpif(x);
  } else {
    return ::sinpi(x);
  }
#else
  const double turn = double(x) - 2.0 * __builtin_floor(double(x) / 2.0);
  return T(__builtin_sin(3.14159265358979323846 * turn));
#endif
}

template <class T>
MOMENTUM_HD T cospi(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    return ::cospif(x);
  } else {
    return ::cospi(x);
  }
#else
  const double turn = double(x) - 2.0 * __builtin_floor(double(x) / 2.0);
  return T(__builtin_cos(3.14159265358979323846 * turn));
#endif
}

// Propagates NaN from either side, as torch.maximum does.
template <class T>
MOMENTUM_HD T max(T a, T b) {
  return (a > b || a != a) ? a : b;
}

// sign(0) = 0; NaN stays NaN, where torch.sign makes it 0 and hides it.
template <class T>
MOMENTUM_HD T sign(T x) {
  const T magnitude = x == T(0) ? T(0) : T(1);
  return x != x ? x : copysign(magnitude, x);
}

// 1 - beta^t without cancellation: the error stays at a few ulp for every t, in float as well, because the relative error of
// t * log(beta) only matters where beta^t itself is far from zero.
template <class T>
MOMENTUM_HD T one_minus_power(T log_beta, T t) {
  return -expm1(t * log_beta);
}

}  // namespace momentum::math
