// What rules may do with a number, on a vector register of them: see core/math.h.
#pragma once

#include "core/math.h"
#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

// The numbers of one register in double.
typedef double HalfDoubles __attribute__((vector_size(4 * kVector)));
struct Doubles {
  HalfDoubles low, high;
};

static inline Doubles operator*(const Doubles& a, const Doubles& b) { return {a.low * b.low, a.high * b.high}; }
static inline Doubles& operator+=(Doubles& a, const Doubles& b) {
  a.low += b.low;
  a.high += b.high;
  return a;
}

static inline Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_maskz_sqrt_ps(0xffff, raw(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_sqrt_ps(raw(x)));
#else
  Floats root;
  for (int i = 0; i < kVector; ++i) root[i] = __builtin_sqrtf(x[i]);
  return root;
#endif
}

// By intrinsics: GCC 12 converts a vector in four parts.
static inline Doubles widen(Floats x) {
#if defined(__AVX512F__)
  __m256 half[2];
  std::memcpy(half, &x, sizeof(x));
  return {reinterpret_cast<HalfDoubles>(_mm512_maskz_cvtps_pd(0xff, half[0])),
          reinterpret_cast<HalfDoubles>(_mm512_maskz_cvtps_pd(0xff, half[1]))};
#elif defined(__AVX2__)
  __m128 half[2];
  std::memcpy(half, &x, sizeof(x));
  return {reinterpret_cast<HalfDoubles>(_mm256_cvtps_pd(half[0])), reinterpret_cast<HalfDoubles>(_mm256_cvtps_pd(half[1]))};
#else
  Doubles wide;
  for (int i = 0; i < kVector / 2; ++i) {
    wide.low[i] = double(x[i]);
    wide.high[i] = double(x[i + kVector / 2]);
  }
  return wide;
#endif
}

}  // namespace momentum::cpu::MOMENTUM_ISA

namespace momentum::math {

template <>
struct Lanes<cpu::MOMENTUM_ISA::Floats> {
  using Floats = cpu::MOMENTUM_ISA::Floats;
  using Ints = cpu::MOMENTUM_ISA::Ints;

  MOMENTUM_HD static Floats sqrt(Floats x) { return cpu::MOMENTUM_ISA::square_root(x); }
  MOMENTUM_HD static Floats abs(Floats x) { return cpu::MOMENTUM_ISA::magnitude(x); }
  MOMENTUM_HD static Floats copysign(Floats magnitude, Floats sign) {
    const Ints bits = reinterpret_cast<Ints>(sign) & int32_t(0x80000000);
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(abs(magnitude)) | bits);
  }
  MOMENTUM_HD static cpu::MOMENTUM_ISA::Doubles wide(Floats x) { return cpu::MOMENTUM_ISA::widen(x); }
};

}  // namespace momentum::math

#if defined(__AVX512F__)

namespace momentum::cpu::MOMENTUM_ISA {

// Numbers in storage, as formats::Float32 and formats::BFloat16 load and store them.
static inline Floats load_numbers(const float* from) { return load<Floats>(from); }
static inline void store_numbers(float* to, Floats x) { store(to, x); }

static inline Floats load_numbers(const uint16_t* from) {
  return as_floats(reinterpret_cast<Ints>(_mm512_maskz_cvtepu16_epi32(0xffff, load<__m256i>(from))) << 16);
}
static inline void store_numbers(uint16_t* to, Floats x) {
  typedef uint32_t Words __attribute__((vector_size(4 * kVector)));
  const Words u = reinterpret_cast<Words>(x);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Words stored = x != x ? Words{} + 0x7fc0u : rounded;
  store(to, _mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(stored)));
}

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
