// Chosen lanes of a vector register, side by side in memory; the first lanes of one.
#pragma once

#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

// Stores the lanes of v whose bits are set side by side, and returns how many they are; writes a whole vector.
static inline int pack_lanes(float* to, Floats v, uint32_t chosen);
// v, with the lanes whose bits are set replaced by numbers that lie side by side; reads a whole vector.
static inline Floats spread_lanes(const float* from, Floats v, uint32_t chosen);
// The lanes of v whose bits are set, those of `other` elsewhere.
static inline Floats choose_lanes(Floats v, Floats other, uint32_t chosen);
// Zeros follow.
static inline Floats load_first(const float* from, int count);
static inline void store_first(float* to, Floats v, int count);

// Zeros that GCC does not recognise. What is packed or spread is merged into them: with a mask that zeroes instead, a Zen 4
// waits for whatever the register held before, and GCC takes the same one in every turn of a loop.
static inline Floats unknown_zeros() {
  Floats zeros = {};
#if defined(__AVX512F__)
  asm("" : "+v"(zeros));
#endif
  return zeros;
}

#if defined(__AVX512F__)

static inline int pack_lanes(float* to, Floats v, uint32_t chosen) {
  store(to, _mm512_mask_compress_ps(raw(unknown_zeros()), __mmask16(chosen), raw(v)));
  return __builtin_popcount(chosen);
}

static inline Floats spread_lanes(const float* from, Floats v, uint32_t chosen) {
  return reinterpret_cast<Floats>(_mm512_mask_expand_ps(raw(v), __mmask16(chosen), load<__m512>(from)));
}

static inline Floats choose_lanes(Floats v, Floats other, uint32_t chosen) {
  return reinterpret_cast<Floats>(_mm512_mask_mov_ps(raw(other), __mmask16(chosen), raw(v)));
}

static inline Floats load_first(const float* from, int count) {
  return reinterpret_cast<Floats>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1u), from));
}

static inline void store_first(float* to, Floats v, int count) {
  _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1u), raw(v));
}

#else

static inline Floats load_first(const float* from, int count) {
  Floats v = {};
  std::memcpy(&v, from, sizeof(float) * size_t(count));
  return v;
}

static inline void store_first(float* to, Floats v, int count) { std::memcpy(to, &v, sizeof(float) * size_t(count)); }

static inline Floats choose_lanes(Floats v, Floats other, uint32_t chosen) {
  Ints bit;
  for (int i = 0; i < kVector; ++i) bit[i] = 1 << i;
  return ((Ints{} + int32_t(chosen)) & bit) != 0 ? v : other;
}

#if defined(__AVX2__)

// For every choice of eight lanes, which lane goes to each place: when they are packed, and when they are spread.
struct LanePlaces {
  uint8_t packed[256][8] = {}, spread[256][8] = {};

  constexpr LanePlaces() {
    for (int chosen = 0; chosen < 256; ++chosen) {
      for (int lane = 0, count = 0; lane < 8; ++lane) {
        spread[chosen][lane] = uint8_t(count % 8);
        if (((chosen >> lane) & 1) != 0) packed[chosen][count++] = uint8_t(lane);
      }
    }
  }
};
inline constexpr LanePlaces kLanePlaces;

static inline __m256 move_lanes(__m256 v, const uint8_t* places) {
  int64_t eight;
  std::memcpy(&eight, places, sizeof(eight));
  return _mm256_permutevar8x32_ps(v, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight)));
}

static inline int pack_lanes(float* to, Floats v, uint32_t chosen) {
  store(to, move_lanes(raw(v), kLanePlaces.packed[chosen]));
  return __builtin_popcount(chosen);
}

static inline Floats spread_lanes(const float* from, Floats v, uint32_t chosen) {
  const __m256 spread = move_lanes(load<__m256>(from), kLanePlaces.spread[chosen]);
  return choose_lanes(reinterpret_cast<Floats>(spread), v, chosen);
}

#else

static inline int pack_lanes(float* to, Floats v, uint32_t chosen) {
  int count = 0;
  for (int i = 0; i < kVector; ++i) {
    to[count] = v[i];
    count += int((chosen >> i) & 1u);
  }
  return count;
}

static inline Floats spread_lanes(const float* from, Floats v, uint32_t chosen) {
  Floats spread;
  for (int i = 0, count = 0; i < kVector; count += int((chosen >> i++) & 1u)) spread[i] = from[count];
  return choose_lanes(spread, v, chosen);
}

#endif
#endif

}  // namespace momentum::cpu::MOMENTUM_ISA
