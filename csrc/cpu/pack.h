// Chosen lanes of a vector register, side by side in memory; the first lanes of one.
#pragma once

#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

// Zeros that GCC does not recognise. What is packed or spread is merged into them: with a mask that zeroes instead, a Zen 4
// waits for whatever the register held before, and GCC takes the same one in every turn of a loop.
static inline Floats unknown_zeros() {
  Floats zeros = {};
#if defined(__AVX512F__)
  asm("" : "+v"(zeros));
#endif
  return zeros;
}

// Stores the lanes of v whose bits are set side by side, and returns how many they are; writes a whole vector.
static inline int pack_lanes(float* to, Floats v, uint32_t chosen) {
#if defined(__AVX512F__)
  store(to, _mm512_mask_compress_ps(raw(unknown_zeros()), __mmask16(chosen), raw(v)));
  return __builtin_popcount(chosen);
#else
  int count = 0;
  for (int i = 0; i < kVector; ++i) {
    to[count] = v[i];
    count += int((chosen >> i) & 1u);
  }
  return count;
#endif
}

// v, with the lanes whose bits are set replaced by numbers that lie side by side; reads a whole vector.
static inline Floats spread_lanes(const float* from, Floats v, uint32_t chosen) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_mask_expand_ps(raw(v), __mmask16(chosen), load<__m512>(from)));
#else
  int count = 0;
  for (int i = 0; i < kVector; ++i) {
    const bool replaced = ((chosen >> i) & 1u) != 0;
    v[i] = replaced ? from[count] : v[i];
    count += int(replaced);
  }
  return v;
#endif
}

// The lanes of v whose bits are set, those of `other` elsewhere.
static inline Floats choose_lanes(Floats v, Floats other, uint32_t chosen) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_mask_mov_ps(raw(other), __mmask16(chosen), raw(v)));
#else
  for (int i = 0; i < kVector; ++i) v[i] = ((chosen >> i) & 1u) != 0 ? v[i] : other[i];
  return v;
#endif
}

// Zeros follow.
static inline Floats load_first(const float* from, int count) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1u), from));
#else
  Floats v = {};
  std::memcpy(&v, from, sizeof(float) * size_t(count));
  return v;
#endif
}

static inline void store_first(float* to, Floats v, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1u), raw(v));
#else
  std::memcpy(to, &v, sizeof(float) * size_t(count));
#endif
}

}  // namespace momentum::cpu::MOMENTUM_ISA
