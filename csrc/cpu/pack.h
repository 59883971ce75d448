// Chosen lanes of a vector register, side by side in memory.
#pragma once

#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

// Stores the lanes of v whose bits are set side by side, and returns how many they are; writes a whole vector.
static inline int pack_lanes(float* to, Floats v, uint32_t chosen) {
#if defined(__AVX512F__)
  store(to, _mm512_maskz_compress_ps(__mmask16(chosen), reinterpret_cast<__m512>(v)));
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
  return reinterpret_cast<Floats>(_mm512_mask_expand_ps(reinterpret_cast<__m512>(v), __mmask16(chosen), load<__m512>(from)));
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

}  // namespace momentum::cpu::MOMENTUM_ISA
