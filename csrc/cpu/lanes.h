// One vector register of the instruction set: the few operations on it that the language cannot say, or GCC not well.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef MOMENTUM_ISA
#error "compiled once per instruction set, with MOMENTUM_ISA defined"
#endif

namespace momentum::cpu::MOMENTUM_ISA {

#if defined(__AVX512F__)
inline constexpr int kVector = 16;
#elif defined(__AVX2__)
inline constexpr int kVector = 8;
#else
inline constexpr int kVector = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * kVector)));
typedef int32_t Ints __attribute__((vector_size(4 * kVector)));

template <class Vector, class Item>
static inline Vector load(const Item* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <class Vector, class Item>
static inline void store(Item* to, const Vector& v) {
  std::memcpy(to, &v, sizeof(v));
}

static inline Floats as_floats(Ints v) { return reinterpret_cast<Floats>(v); }
static inline Ints as_ints(Floats v) { return reinterpret_cast<Ints>(v); }
static inline Floats magnitude(Floats x) { return as_floats(as_ints(x) & 0x7fffffff); }
static inline Floats clamp(Floats x, float low, float high) {
  x = x < low ? Floats{} + low : x;
  return x > high ? Floats{} + high : x;
}

static inline int32_t largest_of(Ints v) {
  int32_t largest = v[0];
  for (int i = 1; i < kVector; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

// Entry `index` of a table of 16, lane by lane; only the low four bits of an index count. Bytes are narrowed and widened by
// intrinsics, the masked ones of AVX-512, because GCC 12 takes the undefined operand of the others for a mistake.
#if defined(__AVX512F__)

static inline Floats lookup(const float* table, Ints index) { return __builtin_shuffle(load<Floats>(table), index); }
static inline Ints lookup(const int32_t* table, Ints index) { return __builtin_shuffle(load<Ints>(table), index); }

// v, with `bit` set where a > b.
static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) {
  const __mmask16 above = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GT_OQ);
  const __m512i old = reinterpret_cast<__m512i>(v);
  return reinterpret_cast<Ints>(_mm512_mask_or_epi32(old, above, old, _mm512_set1_epi32(bit)));
}

// To nearest, ties to even.
static inline Ints round_to_int(Floats x) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtps_epi32(0xffff, reinterpret_cast<__m512>(x)));
}

static inline Ints load_bytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtepu8_epi32(0xffff, load<__m128i>(from)));
}
static inline void store_bytes(uint8_t* to, Ints v) {
  store(to, _mm512_maskz_cvtepi32_epi8(0xffff, reinterpret_cast<__m512i>(v)));
}
// The first of two numbers in the low half of a byte. Bits above the fourth are arbitrary.
static inline Ints load_nibbles(const uint8_t* from) {
  const __m512i both = _mm512_maskz_cvtepu8_epi64(0xff, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<Ints>(_mm512_or_epi64(both, _mm512_maskz_slli_epi64(0xff, both, 28)));
}
static inline void store_nibbles(uint8_t* to, Ints v) {
  const __m512i apart = reinterpret_cast<__m512i>(v);
  const __m512i both = _mm512_or_epi64(apart, _mm512_maskz_srli_epi64(0xff, apart, 28));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi64_epi8(0xff, both));
}

#elif defined(__AVX2__)

static inline Floats lookup(const float* table, Ints index) {
  const __m256i lanes = reinterpret_cast<__m256i>(index);
  const __m256 low = _mm256_permutevar8x32_ps(load<__m256>(table), lanes);
  const __m256 high = _mm256_permutevar8x32_ps(load<__m256>(table + 8), lanes);
  // The fourth bit of the index, moved to the sign, chooses.
  return reinterpret_cast<Floats>(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28))));
}
static inline Ints lookup(const int32_t* table, Ints index) {
  return as_ints(lookup(reinterpret_cast<const float*>(table), index));
}

static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) { return v | ((a > b) & bit); }

static inline Ints round_to_int(Floats x) { return reinterpret_cast<Ints>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(x))); }

// The low byte of each integer, in the low half.
static inline __m128i narrow(Ints v) {
  const __m256i all = reinterpret_cast<__m256i>(v);
  const __m128i shorts = _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  return _mm_packus_epi16(shorts, shorts);
}
static inline Ints load_bytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
static inline void store_bytes(uint8_t* to, Ints v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(to), narrow(v)); }
static inline Ints load_nibbles(const uint8_t* from) {
  const __m256i both = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(load<int>(from)));
  return reinterpret_cast<Ints>(_mm256_or_si256(both, _mm256_slli_epi64(both, 28)));
}
static inline void store_nibbles(uint8_t* to, Ints v) {
  const __m128i apart = narrow(v);
  const __m128i both = _mm_and_si128(_mm_or_si128(apart, _mm_srli_epi16(apart, 4)), _mm_set1_epi16(255));
  store(to, _mm_cvtsi128_si32(_mm_packus_epi16(both, both)));
}

#else

static inline Floats lookup(const float* table, Ints index) {
  Floats out;
  for (int i = 0; i < kVector; ++i) out[i] = table[index[i] & 15];
  return out;
}
static inline Ints lookup(const int32_t* table, Ints index) {
  Ints out;
  for (int i = 0; i < kVector; ++i) out[i] = table[index[i] & 15];
  return out;
}

static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) { return v | ((a > b) & bit); }

static inline Ints round_to_int(Floats x) {
  Ints v;
  for (int i = 0; i < kVector; ++i) v[i] = int32_t(__builtin_rintf(x[i]));
  return v;
}

static inline Ints load_bytes(const uint8_t* from) {
  Ints v;
  for (int i = 0; i < kVector; ++i) v[i] = from[i];
  return v;
}
static inline void store_bytes(uint8_t* to, Ints v) {
  for (int i = 0; i < kVector; ++i) to[i] = uint8_t(v[i]);
}
static inline Ints load_nibbles(const uint8_t* from) {
  Ints v;
  for (int i = 0; i < kVector; ++i) v[i] = from[i / 2] >> (i % 2 * 4);
  return v;
}
static inline void store_nibbles(uint8_t* to, Ints v) {
  for (int i = 0; i < kVector; i += 2) to[i / 2] = uint8_t(v[i] | (v[i + 1] << 4));
}

#endif

}  // namespace momentum::cpu::MOMENTUM_ISA
