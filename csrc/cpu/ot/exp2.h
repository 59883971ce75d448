// Vectors of doubles, and 2^x of them.
//
// x is split into an integer n and a remainder in [-1/2, 1/2], where a polynomial of degree 11 interpolates 2^x at Chebyshev
// nodes to 2e-17; with the roundings of its evaluation the result is within 2 ulp. n goes into the exponent, by integer
// addition or by the instruction that AVX-512 has for it. Results below 2^-1022, and those of NaN, are 0; above 2^1023 they are
// huge.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace momentum::cpu::ot::MOMENTUM_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 8;
#elif defined(__AVX2__)
inline constexpr int kLanes = 4;
#else
inline constexpr int kLanes = 2;
#endif

using Vector __attribute__((vector_size(8 * kLanes))) = double;
using Bits __attribute__((vector_size(8 * kLanes))) = int64_t;
using Singles __attribute__((vector_size(4 * kLanes))) = float;

#define MOMENTUM_INLINE static inline __attribute__((always_inline))

MOMENTUM_INLINE Vector splat(double x) { return x - Vector{}; }

MOMENTUM_INLINE Vector load(const double* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

#if defined(__AVX512F__)
// GCC 12 makes five instructions of the conversion below.
MOMENTUM_INLINE Vector load(const float* p) { return (Vector)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p)); }
#else
MOMENTUM_INLINE Vector load(const float* p) {
  Singles v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vector);
}
#endif

MOMENTUM_INLINE void store(double* p, Vector v) { std::memcpy(p, &v, sizeof v); }

// The first n < kLanes entries, the rest `fill`.
template <class T>
MOMENTUM_INLINE Vector load_tail(const T* p, int n, double fill) {
  double lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? double(p[i]) : fill;
  return load(lanes);
}

MOMENTUM_INLINE void store_tail(double* p, int n, Vector v) {
  double lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

MOMENTUM_INLINE Vector maximum(Vector a, Vector b) { return a > b ? a : b; }  // b where a is NaN

MOMENTUM_INLINE double sum(Vector v) {
  double total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

// 2^r for r in [-1/2, 1/2].
MOMENTUM_INLINE Vector exp2_of_remainder(Vector r) {
  Vector y = splat(4.455817908336064e-10);
  y = y * r + 7.0741942972885210e-9;
  y = y * r + 1.0178057087733941e-7;
  y = y * r + 1.3215432535912376e-6;
  y = y * r + 1.5252733841556773e-5;
  y = y * r + 1.5403530463724354e-4;
  y = y * r + 1.3333558146406471e-3;
  y = y * r + 9.6181291075872566e-3;
  y = y * r + 5.5504108664821627e-2;
  y = y * r + 2.4022650695910160e-1;
  y = y * r + 6.9314718055994531e-1;
  return y * r + 1.0;
}

#if defined(__AVX512F__)
MOMENTUM_INLINE Vector exp2(Vector x) {
  const __m512d value = (__m512d)x;
  const __m512d whole = _mm512_maskz_roundscale_pd(0xff, value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vector y = exp2_of_remainder(x - (Vector)whole);
  const __mmask8 normal = _mm512_cmp_pd_mask(value, _mm512_set1_pd(-1022.0), _CMP_GT_OQ);
  return (Vector)_mm512_maskz_scalef_pd(normal, (__m512d)y, whole);
}
#else
MOMENTUM_INLINE Vector exp2(Vector x) {
  constexpr double kShift = 0x1.8p52;  // adding it leaves the rounded x in the low bits
  const Vector low = splat(-1022.0), high = splat(1023.0);
  const Vector clamped = maximum(x < high ? x : high, low);
  const Vector shifted = clamped + kShift;
  const Vector y = exp2_of_remainder(clamped - (shifted - kShift));
  Bits bits, exponent;
  std::memcpy(&bits, &y, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 52;
  Vector result;
  std::memcpy(&result, &bits, sizeof result);
  return x > low ? result : Vector{};
}
#endif

}  // namespace momentum::cpu::ot::MOMENTUM_ISA
