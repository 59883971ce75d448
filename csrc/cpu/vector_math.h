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

// Whether any number of a mask is not 0; all of its bits are the same.
static inline bool any_lane(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(raw(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(raw(as_floats(mask))) != 0;
#else
  int32_t any = 0;
  for (int i = 0; i < kVector; ++i) any |= mask[i];
  return any != 0;
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
  MOMENTUM_HD static bool any(Ints mask) { return cpu::MOMENTUM_ISA::any_lane(mask); }
  MOMENTUM_HD static Floats copysign(Floats magnitude, Floats sign) {
    const Ints bits = reinterpret_cast<Ints>(sign) & int32_t(0x80000000);
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(abs(magnitude)) | bits);
  }
  MOMENTUM_HD static cpu::MOMENTUM_ISA::Doubles wide(Floats x) { return cpu::MOMENTUM_ISA::widen(x); }
};

}  // namespace momentum::math

#if defined(__AVX512F__)

namespace momentum::cpu::MOMENTUM_ISA {

// Pairs of vectors in storage, as formats::Float32 and formats::BFloat16 load and store numbers; those in bfloat16 in
// alternating order.
static inline void load_pair(const float* from, Floats& first, Floats& second) {
  first = load<Floats>(from);
  second = load<Floats>(from + kVector);
}
static inline void store_pair(float* to, Floats first, Floats second) {
  store(to, first);
  store(to + kVector, second);
}

typedef uint32_t Words __attribute__((vector_size(4 * kVector)));

static inline void load_pair(const uint16_t* from, Floats& first, Floats& second) {
  const Words both = load<Words>(from);
  first = reinterpret_cast<Floats>(both << 16);
  second = reinterpret_cast<Floats>(both & 0xffff0000u);
}

static inline uint32_t nans(Floats x) { return _mm512_cmp_ps_mask(raw(x), raw(x), _CMP_UNORD_Q); }

static inline void store_pair(uint16_t* to, Floats first, Floats second) {
  const Words a = reinterpret_cast<Words>(first), b = reinterpret_cast<Words>(second);
  // The halves of both that are kept, side by side, and those that are dropped: they round up above one half, and at one half
  // where what is kept is odd.
  constexpr __mmask32 kOdd = 0xaaaaaaaau;
  const __m512i kept = _mm512_mask_blend_epi16(kOdd, reinterpret_cast<__m512i>(a >> 16), reinterpret_cast<__m512i>(b));
  const __m512i dropped = _mm512_mask_blend_epi16(kOdd, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b << 16));
  const __m512i one = _mm512_set1_epi16(1);
  const __m512i above_half = _mm512_or_si512(dropped, _mm512_and_si512(kept, one));
  const __mmask32 up = _mm512_cmpgt_epu16_mask(above_half, _mm512_set1_epi16(int16_t(0x8000)));
  __m512i rounded = _mm512_mask_add_epi16(kept, up, kept, one);
  if (_mm512_cmp_ps_mask(raw(first), raw(second), _CMP_UNORD_Q) != 0) [[unlikely]] {
    const __mmask32 undefined = _pdep_u32(nans(first), 0x55555555u) | _pdep_u32(nans(second), 0xaaaaaaaau);
    rounded = _mm512_mask_mov_epi16(rounded, undefined, _mm512_set1_epi16(0x7fc0));
  }
  store(to, rounded);
}

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
