// One vector register of the instruction set: the few operations on it that the language cannot say, or GCC not well.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

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
// x, negated where y is negative.
static inline Floats flip_sign(Floats x, Floats y) { return as_floats(as_ints(x) ^ (as_ints(y) & int32_t(0x80000000))); }
static inline int32_t largest_of(Ints v) {
  Ints lane;
  for (int i = 0; i < kVector; ++i) lane[i] = i;
#pragma GCC unroll 4
  for (int half = kVector / 2; half > 0; half /= 2) {
    const Ints other = __builtin_shuffle(v, lane ^ half);
    v = v > other ? v : other;
  }
  return v[0];
}

#if defined(__AVX512F__)
// The largest of each of four vectors.
static inline __m128i largest_of_four(const Ints* v) {
  const auto larger = [](__m512i a, __m512i b) { return _mm512_maskz_max_epi32(0xffff, a, b); };
  const auto beside = [&](Ints a, Ints b) {
    const __m512i x = reinterpret_cast<__m512i>(a), y = reinterpret_cast<__m512i>(b);
    return larger(_mm512_maskz_unpacklo_epi32(0xffff, x, y), _mm512_maskz_unpackhi_epi32(0xffff, x, y));
  };
  const __m512i low = beside(v[0], v[1]), high = beside(v[2], v[3]);
  const __m512i all = larger(_mm512_maskz_unpacklo_epi64(0xff, low, high), _mm512_maskz_unpackhi_epi64(0xff, low, high));
  __m128i part[4];
  std::memcpy(part, &all, sizeof(all));
  return _mm_max_epi32(_mm_max_epi32(part[0], part[1]), _mm_max_epi32(part[2], part[3]));
}
#endif

// A table of 16 in registers.
template <class Vector>
struct Table {
  Vector part[16 / kVector];
};

template <class Vector, class Item>
static inline Table<Vector> load_table(const Item* from) {
  Table<Vector> table;
  std::memcpy(&table, from, sizeof(table));
  return table;
}

static inline Table<Floats> operator*(Table<Floats> table, float factor) {
  for (Floats& part : table.part) part *= factor;
  return table;
}

// Codes are written in groups: as many as the smallest block has elements.
inline constexpr int kGroup = 64;
inline constexpr int kGroupVectors = kGroup / kVector;
// Groups of bytes written side by side where there are as many: one group's codes take more instructions, each waiting for the
// one before, than a processor looks ahead.
#if defined(__AVX512F__)
inline constexpr int kGroupsAtOnce = 2;
#else
inline constexpr int kGroupsAtOnce = 1;
#endif

// How the elements of a pair of vectors lie: the second vector's after the first's, or those with even places in the first and
// those with odd ones in the second, which saves bfloat16 numbers and codes that are read and written in pairs a good part of
// their shuffles (AVX-512 only).
enum class Order { kRising, kAlternating };
inline constexpr int kPair = 2 * kVector;

// `n` numbers, a multiple of a pair, out of alternating order.
static inline void put_in_order(int n, float* values) {
  for (int begin = 0; begin < n; begin += kPair) {
    float pair[kPair];
    std::memcpy(pair, values + begin, sizeof(pair));
    for (int i = 0; i < kPair; ++i) values[begin + i] = pair[i / 2 + i % 2 * kVector];
  }
}

// A constant for a loop, in a register or on the stack: GCC makes some anew in every turn, by instructions that wait for the
// units of those that the loop is about.
template <class Vector>
static inline Vector kept(Vector v) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

// For each instruction set:
//   lookup             entry `index` of a table of 16, lane by lane; only the low four bits of an index count
//   at_least, at_most  the larger and the smaller of each number and one bound; not for NaN
//   positive_at_most   at_most for positive numbers, by their bits, which more units can compare (AVX-512 only)
//   with_fraction_of   sign and exponent of the first number, fraction of the second (AVX-512 only)
//   insert_bytes       v with one byte of each word from another vector (AVX-512 only)
//   set_where_above    v, with `bit` set where a > b
//   with_sign_of       v, negated where x is negative
//   round_to_int       to nearest, ties to even
//   load_bytes, load_nibbles    codes as integers; of nibbles only the low four bits count
//   load_byte_pairs, load_nibble_pairs  the codes of a pair of vectors in alternating order, beside each other (AVX-512 only)
//   store_bytes, store_nibbles  a group of integers plus a Zero as codes; negative ones become 0, bytes above 255 that
// Bytes are widened by intrinsics, the masked ones of AVX-512, because GCC 12 takes the undefined operand of the others for a
// mistake.
#if defined(__AVX512F__)

static inline __m512 raw(Floats x) { return reinterpret_cast<__m512>(x); }
static inline __m512i raw(Ints v) { return reinterpret_cast<__m512i>(v); }

template <class Vector>
static inline Vector lookup(const Table<Vector>& table, Ints index) {
  return __builtin_shuffle(table.part[0], index);
}

static inline Floats at_least(Floats x, float bound) {
  return reinterpret_cast<Floats>(_mm512_maskz_max_ps(0xffff, raw(x), _mm512_set1_ps(bound)));
}
static inline Floats at_most(Floats x, float bound) {
  return reinterpret_cast<Floats>(_mm512_maskz_min_ps(0xffff, raw(x), _mm512_set1_ps(bound)));
}
static inline Floats positive_at_most(Floats x, float bound) {
  const __m512i bits = _mm512_castps_si512(_mm512_set1_ps(bound));
  return as_floats(reinterpret_cast<Ints>(_mm512_maskz_min_epi32(0xffff, raw(as_ints(x)), bits)));
}
static inline Floats with_fraction_of(Floats x, Floats y) {
  constexpr int kFirstWhereSecond = 0xe2;
  const __m512i fraction = _mm512_set1_epi32(0x7fffff);
  return as_floats(
      reinterpret_cast<Ints>(_mm512_ternarylogic_epi32(raw(as_ints(y)), fraction, raw(as_ints(x)), kFirstWhereSecond)));
}
// A blend, because an "and" with an "or" reads three registers in one instruction, and on Zen 4 those get in the way of
// products with sums, which read three too.
template <int kByte>
static inline Floats insert_bytes(Floats v, Ints from) {
  constexpr uint64_t kBytes = 0x1111111111111111u << kByte;
  return as_floats(reinterpret_cast<Ints>(_mm512_mask_blend_epi8(kBytes, raw(as_ints(v)), raw(from))));
}

static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) {
  const __mmask16 above = _mm512_cmp_ps_mask(raw(a), raw(b), _CMP_GT_OQ);
  return reinterpret_cast<Ints>(_mm512_mask_or_epi32(raw(v), above, raw(v), _mm512_set1_epi32(bit)));
}
static inline Ints with_sign_of(Ints v, Floats x) {
  const __mmask16 negative = _mm512_movepi32_mask(raw(as_ints(x)));
  return reinterpret_cast<Ints>(_mm512_mask_sub_epi32(raw(v), negative, _mm512_setzero_si512(), raw(v)));
}

static inline Ints round_to_int(Floats x) { return reinterpret_cast<Ints>(_mm512_maskz_cvtps_epi32(0xffff, raw(x))); }

static inline Ints load_bytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtepu8_epi32(0xffff, load<__m128i>(from)));
}
static inline Ints load_byte_pairs(const uint8_t* from) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtepu16_epi32(0xffff, load<__m256i>(from)));
}
typedef __m512i Zero;  // of words
static inline Zero make_zero(int zero) { return _mm512_set1_epi16(int16_t(zero)); }
// The bytes of a group, four from each vector at a time.
static inline __m512i narrow_by_fours(const Ints* v, Zero zero) {
  const __m512i low = _mm512_maskz_packs_epi32(~0u, raw(v[0]), raw(v[1]));
  const __m512i high = _mm512_maskz_packs_epi32(~0u, raw(v[2]), raw(v[3]));
  return _mm512_maskz_packus_epi16(~uint64_t(0), _mm512_maskz_add_epi16(~0u, low, zero),
                                   _mm512_maskz_add_epi16(~0u, high, zero));
}
// The same in order.
static inline __m512i narrow(const Ints* v, Zero zero) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_maskz_permutexvar_epi32(0xffff, order, narrow_by_fours(v, zero));
}
#if defined(__AVX512VBMI__)
// Where the bytes of a group in alternating order come from.
struct BytePlaces {
  alignas(64) uint8_t of[kGroup] = {};
  constexpr BytePlaces() {
    for (int i = 0; i < kGroup; ++i) {
      const int place = i % kPair / 2;
      of[i] = uint8_t(place / 4 * 16 + (i / kPair * 2 + i % 2) * 4 + place % 4);
    }
  }
};
inline constexpr BytePlaces kBytePlaces;
#endif
template <Order kOrder>
static inline void store_bytes(uint8_t* to, const Ints* v, Zero zero) {
  if constexpr (kOrder == Order::kRising) return store(to, narrow(v, zero));
#if defined(__AVX512VBMI__)
  store(to, _mm512_maskz_permutexvar_epi8(~uint64_t(0), load<__m512i>(kBytePlaces.of), narrow_by_fours(v, zero)));
#else
  const __m512i beside =
      _mm512_maskz_broadcast_i32x4(0xffff, _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  store(to, _mm512_maskz_permutexvar_epi64(0xff, order, _mm512_shuffle_epi8(narrow_by_fours(v, zero), beside)));
#endif
}
// The first of two numbers in the low half of a byte. Bits above the fourth are arbitrary.
static inline Ints load_nibbles(const uint8_t* from) {
  const __m512i both = _mm512_maskz_cvtepu8_epi64(0xff, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<Ints>(_mm512_or_epi64(both, _mm512_maskz_slli_epi64(0xff, both, 28)));
}
static inline Ints load_nibble_pairs(const uint8_t* from) { return load_bytes(from); }
template <Order kOrder>
static inline void store_nibbles(uint8_t* to, const Ints* v, Zero zero) {
  if constexpr (kOrder == Order::kRising) {
    const __m512i pairs = _mm512_maskz_maddubs_epi16(~0u, narrow(v, zero), _mm512_set1_epi16(1 | (16 << 8)));
    return store(to, _mm512_maskz_cvtepi16_epi8(~0u, pairs));
  }
  // Four codes of the first vector of a pair, then four of the second, in the high half of 64 bits.
  const __m512i bytes = narrow_by_fours(v, zero), order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512i both = _mm512_or_epi64(bytes, _mm512_maskz_srli_epi64(0xff, bytes, 28));
  const __m512i ordered = _mm512_maskz_permutexvar_epi32(0xffff, order, both);
  std::memcpy(to, &ordered, kGroup / 2);
}

#elif defined(__AVX2__)

static inline __m256 raw(Floats x) { return reinterpret_cast<__m256>(x); }
static inline __m256i raw(Ints v) { return reinterpret_cast<__m256i>(v); }

static inline Floats lookup(const Table<Floats>& table, Ints index) {
  const __m256 low = _mm256_permutevar8x32_ps(raw(table.part[0]), raw(index));
  const __m256 high = _mm256_permutevar8x32_ps(raw(table.part[1]), raw(index));
  // The fourth bit of the index, moved to the sign, chooses.
  return reinterpret_cast<Floats>(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(raw(index), 28))));
}
static inline Ints lookup(const Table<Ints>& table, Ints index) {
  return as_ints(lookup(Table<Floats>{as_floats(table.part[0]), as_floats(table.part[1])}, index));
}

static inline Floats at_least(Floats x, float bound) {
  return reinterpret_cast<Floats>(_mm256_max_ps(raw(x), _mm256_set1_ps(bound)));
}
static inline Floats at_most(Floats x, float bound) {
  return reinterpret_cast<Floats>(_mm256_min_ps(raw(x), _mm256_set1_ps(bound)));
}

static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) { return v | ((a > b) & bit); }
static inline Ints with_sign_of(Ints v, Floats x) {
  const Ints negative = as_ints(x) >> 31;
  return (v ^ negative) - negative;
}

static inline Ints round_to_int(Floats x) { return reinterpret_cast<Ints>(_mm256_cvtps_epi32(raw(x))); }

static inline Ints load_bytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
typedef __m256i Zero;  // of words
static inline Zero make_zero(int zero) { return _mm256_set1_epi16(int16_t(zero)); }
// Packing takes four integers from each vector at a time.
static inline __m256i narrow(const Ints* v, Zero zero) {
  const __m256i low = _mm256_packs_epi32(raw(v[0]), raw(v[1])), high = _mm256_packs_epi32(raw(v[2]), raw(v[3]));
  const __m256i bytes = _mm256_packus_epi16(_mm256_add_epi16(low, zero), _mm256_add_epi16(high, zero));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
template <Order kOrder>
static inline void store_bytes(uint8_t* to, const Ints* v, Zero zero) {
  static_assert(kOrder == Order::kRising);
  store(to, narrow(v, zero));
  store(to + 32, narrow(v + 4, zero));
}
static inline Ints load_nibbles(const uint8_t* from) {
  const __m256i both = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(load<int>(from)));
  return reinterpret_cast<Ints>(_mm256_or_si256(both, _mm256_slli_epi64(both, 28)));
}
template <Order kOrder>
static inline void store_nibbles(uint8_t* to, const Ints* v, Zero zero) {
  static_assert(kOrder == Order::kRising);
  const __m256i first = _mm256_set1_epi16(1 | (16 << 8));
  const __m256i low = _mm256_maddubs_epi16(narrow(v, zero), first), high = _mm256_maddubs_epi16(narrow(v + 4, zero), first);
  // Packing takes eight from each at a time.
  store(to, _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0b11011000));
}

#else

template <class Vector>
static inline Vector lookup(const Table<Vector>& table, Ints index) {
  std::remove_reference_t<decltype(std::declval<Vector&>()[0])> all[16];
  std::memcpy(all, &table, sizeof(table));
  Vector out;
  for (int i = 0; i < kVector; ++i) out[i] = all[index[i] & 15];
  return out;
}

static inline Floats at_least(Floats x, float bound) { return x < bound ? Floats{} + bound : x; }
static inline Floats at_most(Floats x, float bound) { return x > bound ? Floats{} + bound : x; }

static inline Ints set_where_above(Ints v, Floats a, Floats b, int bit) { return v | ((a > b) & bit); }
static inline Ints with_sign_of(Ints v, Floats x) {
  const Ints negative = as_ints(x) >> 31;
  return (v ^ negative) - negative;
}

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
typedef int Zero;
static inline Zero make_zero(int zero) { return zero; }
template <Order kOrder>
static inline void store_bytes(uint8_t* to, const Ints* v, Zero zero) {
  static_assert(kOrder == Order::kRising);
  for (int i = 0; i < kGroup; ++i) {
    const int32_t code = v[i / kVector][i % kVector] + zero;
    to[i] = uint8_t(code < 0 ? 0 : code > 255 ? 255 : code);
  }
}
static inline Ints load_nibbles(const uint8_t* from) {
  Ints v;
  for (int i = 0; i < kVector; ++i) v[i] = from[i / 2] >> (i % 2 * 4);
  return v;
}
template <Order kOrder>
static inline void store_nibbles(uint8_t* to, const Ints* v, Zero zero) {
  static_assert(kOrder == Order::kRising);
  uint8_t bytes[kGroup];
  store_bytes<kOrder>(bytes, v, zero);
  for (int i = 0; i < kGroup; i += 2) to[i / 2] = uint8_t(bytes[i] | (bytes[i + 1] << 4));
}

#endif

}  // namespace momentum::cpu::MOMENTUM_ISA
