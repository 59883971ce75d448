// The few scalar functions rules may use, the same on host and device, for float and double.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/bits.h"
#include "core/config.h"

namespace momentum::math {

MOMENTUM_HD float sqrt(float x) { return __builtin_sqrtf(x); }
MOMENTUM_HD double sqrt(double x) { return __builtin_sqrt(x); }
MOMENTUM_HD float abs(float x) { return __builtin_fabsf(x); }
MOMENTUM_HD double abs(double x) { return __builtin_fabs(x); }
// a b + c, rounded once on every processor. Those without the instruction, which are old, take some nanoseconds.
MOMENTUM_HD float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
MOMENTUM_HD double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
// a b + c, rounded once where the hardware does that at the price of an addition, and else the product first: what is computed
// in two places then has the same bits in both, where a compiler is otherwise free to choose. Vectors V are left to it.
template <class T, class V>
MOMENTUM_HD V multiply_add(T a, V b, V c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__FP_FAST_FMAF)
  if constexpr (std::is_same_v<V, float> || std::is_same_v<V, double>) return fma(a, b, c);
#endif
  return a * b + c;
}
MOMENTUM_HD float copysign(float magnitude, float sign) { return __builtin_copysignf(magnitude, sign); }
MOMENTUM_HD double copysign(double magnitude, double sign) { return __builtin_copysign(magnitude, sign); }
MOMENTUM_HD float expm1(float x) { return __builtin_expm1f(x); }
MOMENTUM_HD double expm1(double x) { return __builtin_expm1(x); }
MOMENTUM_HD float log(float x) { return __builtin_logf(x); }
MOMENTUM_HD double log(double x) { return __builtin_log(x); }

// The same of vectors of numbers, lane by lane, where a backend has them: it specialises this struct.
template <class V>
struct Lanes;

template <class V>
MOMENTUM_HD V sqrt(V x) {
  return Lanes<V>::sqrt(x);
}
template <class V>
MOMENTUM_HD V abs(V x) {
  return Lanes<V>::abs(x);
}
template <class V>
MOMENTUM_HD V copysign(V magnitude, V sign) {
  return Lanes<V>::copysign(magnitude, sign);
}

// Whether something is to be done for any of the numbers of a vector V; true for a single number, as its loop over many must
// not branch.
template <class V, class Mask>
MOMENTUM_HD bool any_of([[maybe_unused]] Mask mask) {
  if constexpr (std::is_arithmetic_v<V>) {
    return true;
  } else {
    return Lanes<V>::any(mask);
  }
}

// In double: exact, and so are products of two that were float.
template <class V>
MOMENTUM_HD auto wide(V x) {
  if constexpr (std::is_arithmetic_v<V>) {
    return double(x);
  } else {
    return Lanes<V>::wide(x);
  }
}

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
template <class V>
MOMENTUM_HD V sign(V x) {
  const V magnitude = x != V{} ? V{} + 1 : V{};
  return x != x ? x : copysign(magnitude, x);
}

// 1 - beta^t without cancellation: the error stays at a few ulp for every t, in float as well, because the relative error of
// t * log(beta) only matters where beta^t itself is far from zero.
template <class T>
MOMENTUM_HD T one_minus_power(T log_beta, T t) {
  return -expm1(t * log_beta);
}

// exp(x) for x <= 0, to a few ulp, in operations that vectorise: x = n log(2) + r, |r| <= log(2) / 2, and Taylor's polynomial
// of r, whose remainder is below half an ulp. Below about 1e-38 (1e-308) it stays there.
template <class T>
MOMENTUM_HD T exp_of_negative(T x) {
  constexpr bool kWide = sizeof(T) == 8;
  using Bits = std::conditional_t<kWide, uint64_t, uint32_t>;
  constexpr T kLeast = kWide ? T(-708) : T(-87);
  constexpr T kLog2High = kWide ? T(0x1.62e42feep-1) : T(0x1.63p-1);  // few bits: n times it is exact
  constexpr T kLog2Low = kWide ? T(0x1.a39ef35793c76p-33) : T(-2.12194440054690583e-4);
  constexpr T kInteger = kWide ? T(0x1.8p52) : T(0x1.8p23);  // a number in its lowest bits once added
  constexpr int kMantissa = kWide ? 52 : 23, kBias = kWide ? 1023 : 127, kDegree = kWide ? 13 : 7;
  x = x < kLeast ? kLeast : x;
  const T shifted = x * T(1.44269504088896340736) + kInteger;
  const T n = shifted - kInteger;
  const T r = (x - n * kLog2High) - n * kLog2Low;
  T sum = T(1);
  MOMENTUM_UNROLL
  for (int k = kDegree; k > 0; --k) sum = T(1) + r * sum * T(1.0 / k);
  const Bits power = (bit_cast<Bits>(shifted) - bit_cast<Bits>(kInteger) + Bits(kBias)) << kMantissa;
  return sum * bit_cast<T>(power);
}

// 1 - coth(x) + 1 / x for x > 0: one minus Langevin's function, by Lambert's continued fraction where the difference would
// cancel.
template <class T>
MOMENTUM_HD T one_minus_langevin(T x) {
  if (x > T(2)) return T(1) / x - T(2) / expm1(T(2) * x);
  T fraction = T(0);
  for (int k = 27; k > 1; k -= 2) fraction = x * x / (T(k) + fraction);
  return T(1) - fraction / x;
}

}  // namespace momentum::math
