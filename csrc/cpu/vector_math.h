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

// The places of the low and of the high halves of the numbers of two vectors, side by side.
struct PairHalves {
  alignas(64) uint16_t places[2][2 * kVector] = {};
  constexpr PairHalves() {
    for (int i = 0; i < 4 * kVector; ++i) places[i % 2][i / 4 * 2 + i / 2 % 2] = uint16_t(i / 4 * 2 + i % 2 + i / 2 % 2 * 32);
  }
};
inline constexpr PairHalves kPairHalves;

// Rounds pairs of vectors to bfloat16, to nearest, in alternating order; NaN becomes something else.
class PairRounding {
 public:
  __m512i operator()(Floats first, Floats second) const {
    const __m512i a = raw(as_ints(first)), b = raw(as_ints(second));
    // The halves of both that are kept, side by side, and those that are dropped: they round up above one half, and at one half
    // where what is kept is odd.
    const __m512i kept = _mm512_permutex2var_epi16(a, load<__m512i>(kPairHalves.places[1]), b);
    const __m512i dropped = _mm512_permutex2var_epi16(a, load<__m512i>(kPairHalves.places[0]), b);
    const __m512i above_half = _mm512_or_si512(dropped, _mm512_and_si512(kept, one_));
    return _mm512_mask_add_epi16(kept, _mm512_cmpgt_epu16_mask(above_half, half_), kept, one_);
  }

 private:
  __m512i one_ = kept(_mm512_set1_epi16(1)), half_ = kept(_mm512_set1_epi16(int16_t(0x8000)));
};

static inline uint32_t nans(Floats x) { return _mm512_cmp_ps_mask(raw(x), raw(x), _CMP_UNORD_Q); }

static inline void store_pair(uint16_t* to, Floats first, Floats second) {
  __m512i rounded = PairRounding()(first, second);
  if (_mm512_cmp_ps_mask(raw(first), raw(second), _CMP_UNORD_Q) != 0) [[unlikely]] {
    const __mmask32 undefined = _pdep_u32(nans(first), 0x55555555u) | _pdep_u32(nans(second), 0xaaaaaaaau);
    rounded = _mm512_mask_mov_epi16(rounded, undefined, _mm512_set1_epi16(0x7fc0));
  }
  store(to, rounded);
}

// A pair of vectors as it is stored, unless it needs care: then only `store_pair` is right.
template <class Number>
struct PackedPair;

template <>
struct PackedPair<float> {
  struct Constants {};

  PackedPair() = default;
  PackedPair(const Constants&, Floats first_vector, Floats second_vector) : first(first_vector), second(second_vector) {}
  bool needs_care() const { return false; }
  void store(float* to) const { store_pair(to, first, second); }

  Floats first, second;
};

#if defined(__AVX512BF16__)
// The places of the numbers of a pair of vectors, one after the other, in alternating order.
struct PairPlaces {
  alignas(64) uint16_t of[kPair] = {};
  constexpr PairPlaces() {
    for (int i = 0; i < kPair; ++i) of[i] = uint16_t(i / 2 + i % 2 * kVector);
  }
};
inline constexpr PairPlaces kPairPlaces;
#endif

template <>
struct PackedPair<uint16_t> {
#if defined(__AVX512BF16__)
  // The instruction takes subnormal numbers for zero.
  struct Constants {};

  PackedPair() = default;
  PackedPair(const Constants&, Floats first, Floats second) : careful(classify(first) | classify(second)) {
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(raw(second), raw(first)));
    rounded = _mm512_maskz_permutexvar_epi16(~0u, load<__m512i>(kPairPlaces.of), both);
  }
  static __mmask16 classify(Floats x) {
    constexpr int kNan = 0x81, kSubnormal = 0x20;
    return _mm512_fpclass_ps_mask(raw(x), kNan | kSubnormal);
  }
#else
  using Constants = PairRounding;

  PackedPair() = default;
  PackedPair(const Constants& round, Floats first, Floats second)
      : rounded(round(first, second)), careful(_mm512_cmp_ps_mask(raw(first), raw(second), _CMP_UNORD_Q)) {}
#endif
  bool needs_care() const { return careful != 0; }
  void store(uint16_t* to) const { _mm512_storeu_si512(to, rounded); }

  __m512i rounded;
  __mmask16 careful;
};

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
