// Codes of quantised states, a vector at a time: what they stand for, and the nearest to a number. The same values and codes as
// core/formats/codes.h says.
#pragma once

#include "core/formats/codes.h"
#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

using formats::CodeMap;

// The constants of the maps of 4 bits: values and thresholds in one register each; the nearest code by binary search. For the
// signed map that is symmetric, AVX-512 has a shorter way.
struct FourBits {
  float units = 1;      // numbers in [-1, 1] are multiplied by this before `nearest`
  bool linear = false;  // rounded, not searched
  alignas(64) float values[16] = {};
  // What a number is compared with at each step of the search, by the codes that are still possible.
  float middle = 0;
  alignas(64) float eighths[16] = {};
  alignas(64) float quarters[16] = {};
  alignas(64) float halves[16] = {};
  // By the quarter of a binade of |x| + kShift, the last quarter ending at 2: what makes the magnitude of its bits from
  // kQuarter on when added, with a carry where |x| is above the threshold in it; no quarter has two.
  static constexpr float kShift = 0x1p-7f;
  static constexpr int kQuarter = 21;
  bool in_quarters = false;
  int zero = 0;  // of the magnitudes; added to `nearest`
  alignas(64) int32_t to_magnitude[32] = {};

  constexpr explicit FourBits(CodeMap map) : units(map == CodeMap::kLinear4 ? 16.0f : 1.0f), linear(map == CodeMap::kLinear4) {
    float above[16] = {};  // [i]: between codes i and i + 1
    for (int i = 0; i < 16; ++i) values[i] = formats::decode(map, uint32_t(i));
    for (int i = 0; i < 15; ++i) above[i] = 0.5f * (values[i] + values[i + 1]);
    middle = above[7];
    for (int i = 0; i < 16; i += 8) eighths[i] = above[i + 3];
    for (int i = 0; i < 16; i += 4) quarters[i] = above[i + 1];
    for (int i = 0; i < 16; i += 2) halves[i] = above[i];
#if defined(__AVX512F__)
    if (map != CodeMap::kDynamic4) return;
    in_quarters = true;
    zero = formats::dynamic::zero(map);
    const int32_t least = bit_cast<int32_t>(kShift) >> kQuarter;
    for (int i = zero; i < 15; ++i) {
      const int32_t bits = bit_cast<int32_t>(above[i] + kShift);
      const int32_t quarter = (bits >> kQuarter) - least;
      to_magnitude[quarter] += (1 << kQuarter) - 1 - (bits & ((1 << kQuarter) - 1));
      for (int j = quarter + 1; j < 32; ++j) to_magnitude[j] += 1 << kQuarter;
    }
    for (int j = 0; j < 32; ++j) to_magnitude[j] -= (least + j) * (1 << kQuarter);
#endif
  }
};

// The constants of the dynamic maps of 8 bits. Both are read and written by the same instructions, signed numbers among them.
struct DynamicBytes {
  static constexpr float units = 1;
  // A code c stands for magnitude 256 (c / 256 + shift), negative ones for negative numbers, and is what is stored of magnitude
  // m as m + zero.
  bool is_unsigned;
  float shift = 0;
  int zero = 0;
  // By the decade, as the exponent of magnitude / 256 shows it: 119 + e. Entry 0 is for the number 0.
  alignas(64) float unit[16] = {};
  alignas(64) float bias[16] = {};
  // The decades that have magnitudes of their own, the last one a single magnitude, and the numbers from which on they do.
  int first = 0, thresholds = 0;
  float threshold[16] = {};
#if defined(__AVX512F__)
  // A number in decade e is magnitude 2^e (factor x + 8/9), rounded down, where the bracket stays below kBelow: it reaches 2
  // only between the decade's last magnitude and the next threshold. A decade's first magnitude needs no such bound: its
  // threshold is only 0.3 of a magnitude below it. The bracket of the last decade is to be just above 1. By the decade of a
  // number, as 127 + e; where e is one less than the first decade's there is only zero.
  static constexpr float kBelow = 0x1.fep0f, kLastFactor = 0.113f;
  alignas(64) float factor[16] = {};
  // By the binade of a number, the last but one ending at 1: what makes 127 + e of its bits' exponent when added, with a carry
  // where the number is above the threshold in its binade. It is not negative, and small enough that numbers below all these
  // binades, which find the entry of another, keep an exponent below 127 and so become zero.
  alignas(64) int32_t to_decade[32] = {};
#else
  // By the decade of a number, as 126 + e: its line in magnitudes, and what that stays below; see above.
  alignas(64) float factor[16] = {};
  alignas(64) float offset[16] = {};
  alignas(64) float high[16] = {};
#endif

  constexpr explicit DynamicBytes(CodeMap map) : is_unsigned(formats::is_unsigned(map)) {
    const int top = formats::dynamic::top(map);
    first = is_unsigned ? 1 : 0;
    zero = is_unsigned ? -1 : formats::dynamic::zero(map);
    shift = float(-zero) * 0x1p-8f;
    for (int e = first; e <= top; ++e) {
      unit[(119 + e) % 16] = formats::dynamic::power_of_five(e) * formats::dynamic::unit(top);
      bias[(119 + e) % 16] = float(9 - (16 << e));
    }
    unit[(120 + top) % 16] = 1.0f;  // the last magnitude alone: its value is exactly 1
    bias[(120 + top) % 16] = float(1 - 18 * (2 << top));
    thresholds = top + 2 - first;
    for (int e = first; e <= top + 1; ++e) threshold[e - first] = formats::dynamic::threshold(e, top, e == first);
    make_lines(top);
  }

#if defined(__AVX512F__)
  // Whether the last decade is its one magnitude up to a little above 1, and no entry of `to_decade` brings a number that it is
  // not for to an exponent of 127.
  constexpr bool is_sound() const {
    const float least = threshold[thresholds - 1], magnitudes = is_unsigned ? 256.0f : 128.0f;
    bool sound = kLastFactor * least + 8.0f / 9.0f > 1.0f && kLastFactor * 1.001f + 8.0f / 9.0f < 1.0f + 1.0f / magnitudes;
    for (int i = 0; i < 32; ++i) sound = sound && to_decade[i] >= 0 && 64 + i + ((to_decade[i] + 0x7fffff) >> 23) < 127;
    return sound;
  }

  constexpr void make_lines(int top) {
    for (int e = first; e <= top; ++e) factor[(127 + e) % 16] = formats::dynamic::line_factor(e, top) / float(1 << e);
    factor[(128 + top) % 16] = kLastFactor;
    float begin = 1.0f;
    for (int i = 31; i >= 0; --i, begin *= 0.5f) {
      int e = first - 1;
      float inside = 0.0f;
      for (int j = 0; j < thresholds; ++j) {
        if (threshold[j] < begin) ++e;
        if (threshold[j] >= begin && threshold[j] < 2 * begin) inside = threshold[j];
      }
      const int32_t last = bit_cast<int32_t>(inside) & 0x7fffff;
      to_decade[i] = (127 + e - (96 + i)) * (1 << 23) + (inside > 0.0f ? 0x7fffff - last : 0);
    }
  }
#else
  constexpr void make_lines(int top) {
    for (int e = first - 1; e <= top + 1; ++e) {
      const bool none = (e < first);
      const bool alone = (e > top);  // one magnitude, whatever the number
      factor[(126 + e) % 16] = none ? 0.0f : alone ? float(1 << e) : formats::dynamic::line_factor(e, top);
      offset[(126 + e) % 16] = 0.5f * formats::dynamic::line_offset(e + 1);
      high[(126 + e) % 16] = alone ? float(1 << e) + 0.5f : float(1 << (e + 1)) - 0.5f;
    }
  }
#endif
};

#if defined(__AVX512F__)
static_assert(DynamicBytes(CodeMap::kDynamic8).is_sound() && DynamicBytes(CodeMap::kUnsignedDynamic8).is_sound());
#endif

// The magnitudes nearest to numbers, with their signs, also for unsigned maps, of which magnitudes below 1 stand for zero.
inline Ints nearest(const DynamicBytes& table, Floats x) {
#if defined(__AVX512F__)
  const Ints binade = as_ints(x) >> 23;  // the low five bits of an index count
  const Ints decade = as_ints(x) + __builtin_shuffle(load<Ints>(table.to_decade), load<Ints>(table.to_decade + 16), binade);
  const Floats factor = lookup(load_table<Floats>(table.factor), decade >> 23);
  const Floats bracket = factor * (table.is_unsigned ? x : magnitude(x)) + 8.0f / 9.0f;
  const Floats below = positive_at_most(bracket, table.kBelow);
  return __builtin_convertvector(with_fraction_of(as_floats(decade), below), Ints);
#else
  const Floats a = magnitude(x);
  Ints index = Ints{} + (125 + table.first);
  for (int i = 0; i < table.thresholds; ++i) index -= a > table.threshold[i];
  const Floats line = lookup(load_table<Floats>(table.factor), index) * a + lookup(load_table<Floats>(table.offset), index);
  const Floats high = lookup(load_table<Floats>(table.high), index);
  return with_sign_of(__builtin_convertvector(line > high ? high : line, Ints), x);
#endif
}

// From codes of such a map to numbers, for one block. All products but the last are normal numbers, whatever the scale.
class DynamicBytesDecoder {
 public:
  DynamicBytesDecoder() = default;
  DynamicBytesDecoder(const DynamicBytes& table, float scale) : shift_(table.shift) {
    const float down = scale < 0x1p-60f ? 0x1p-60f : 1.0f;
    slope_ = 18.0f * 256.0f * down;
    bias_ = load_table<Floats>(table.bias) * down;
    unit_ = load_table<Floats>(table.unit) * (down < 1.0f ? scale * 0x1p60f : scale);
  }

  // kSigned: some codes may be those of negative numbers.
  template <bool kSigned = true>
  Floats of(Ints code) const {
    return decode<kSigned>(as_floats(code | bit_cast<int32_t>(kBeside<0>)) - (kBeside<0> - shift_));
  }

#if defined(__AVX512F__)
  // Of the codes in byte kPlace of each word.
  template <int kPlace, bool kSigned>
  Floats of_pair(Ints words) const {
    return decode<kSigned>(insert_bytes<kPlace>(Floats{} + kBeside<kPlace>, words) - (kBeside<kPlace> - shift_));
  }
#endif

 private:
  // The power of two beside which byte kPlace of a word counts 256ths; their sums are exact.
  template <int kPlace>
  static constexpr float kBeside = kPlace == 0 ? 0x1p15f : 0x1p7f;

  // Of magnitudes / 256, with the signs of the numbers.
  template <bool kSigned>
  Floats decode(Floats number) const {
    const Ints decade = as_ints(number) >> 23;
    const Floats bias = lookup(bias_, decade);
    return (slope_ * number + (kSigned ? flip_sign(bias, number) : bias)) * lookup(unit_, decade);
  }

  float shift_ = 0, slope_ = 0;
  Table<Floats> bias_ = {}, unit_ = {};
};

class FourBitsDecoder {
 public:
  FourBitsDecoder() = default;
  FourBitsDecoder(const FourBits& table, float scale) : values_(load_table<Floats>(table.values) * scale) {}

  template <bool = true>
  Floats of(Ints code) const {
    return lookup(values_, code);
  }

  // Of the codes in half kPlace of each byte.
  template <int kPlace, bool>
  Floats of_pair(Ints words) const {
    return lookup(values_, words >> 4 * kPlace);
  }

 private:
  Table<Floats> values_ = {};
};

inline Ints nearest(const FourBits& table, Floats x) {
  if (table.linear) return round_to_int(at_most(x - 1.0f, 15.0f));
#if defined(__AVX512F__)
  if (table.in_quarters) {
    // The sum's rounding is below a unit in the last place of 8 |x| where |x| is near a threshold.
    const Ints bits = as_ints(magnitude(x) + table.kShift), quarter = bits >> table.kQuarter;
    const Ints offset = __builtin_shuffle(load<Ints>(table.to_magnitude), load<Ints>(table.to_magnitude + 16), quarter);
    return with_sign_of((bits + offset) >> table.kQuarter, x);
  }
#endif
  Ints code = set_where_above(Ints{}, x, Floats{} + table.middle, 8);
  code = set_where_above(code, x, lookup(load_table<Floats>(table.eighths), code), 4);
  code = set_where_above(code, x, lookup(load_table<Floats>(table.quarters), code), 2);
  return set_where_above(code, x, lookup(load_table<Floats>(table.halves), code), 1);
}

struct LinearBytes {
  static constexpr float units = 127;
  static constexpr int zero = 0;
};

class LinearBytesDecoder {
 public:
  LinearBytesDecoder(LinearBytes, float scale) : scale_(scale) {}

  Floats of(Ints code) const { return __builtin_convertvector((code << 24) >> 24, Floats) * (1.0f / 127.0f) * scale_; }

 private:
  float scale_;
};

inline Ints nearest(LinearBytes, Floats x) { return round_to_int(at_most(at_least(x, -127.0f), 127.0f)) & 0xff; }

struct FloatBytes {
  static constexpr float units = formats::float8::kLargest;
  static constexpr int zero = 0;
};

class FloatBytesDecoder {
 public:
  FloatBytesDecoder(FloatBytes, float scale) : scale_(scale) {}

  Floats of(Ints code) const {
    const Ints m = code & 0x7f;
    const Floats finite = as_floats(m << 20) * 0x1p120f;
    const Floats value = m == 0x7f ? as_floats(Ints{} + 0x7fc00000) : finite;
    return as_floats(as_ints(value) | ((code & 0x80) << 24)) * (1.0f / formats::float8::kLargest) * scale_;
  }

 private:
  float scale_;
};

inline Ints nearest(FloatBytes, Floats x) {
  const Ints u = as_ints(x);
  const Ints m = u & 0x7fffffff;
  const Ints subnormal = as_ints(as_floats(m) + 16384.0f) - 0x46800000;
  const Ints normal = (m - 0x3c000000 + 0x7ffff + ((m >> 20) & 1)) >> 20;
  Ints code = m < 0x3c800000 ? subnormal : normal;
  code = m >= 0x43e00000 ? Ints{} + 0x7e : code;
  return code | ((u >> 24) & 0x80);
}

// The constants of a map.
template <CodeMap kMap>
constexpr auto make_constants() {
  if constexpr (formats::code_bits(kMap) == 4) {
    return FourBits(kMap);
  } else if constexpr (formats::is_dynamic(kMap)) {
    return DynamicBytes(kMap);
  } else if constexpr (kMap == CodeMap::kLinear8) {
    return LinearBytes();
  } else {
    static_assert(kMap == CodeMap::kFloat8);
    return FloatBytes();
  }
}
template <CodeMap kMap>
inline constexpr auto kConstants = make_constants<kMap>();

// What goes with each kind of constants.
template <class Constants>
struct Codec;
template <>
struct Codec<FourBits> {
  using Decoder = FourBitsDecoder;
  static constexpr int kBits = 4;
};
template <>
struct Codec<DynamicBytes> {
  using Decoder = DynamicBytesDecoder;
  static constexpr int kBits = 8;
};
template <>
struct Codec<LinearBytes> {
  using Decoder = LinearBytesDecoder;
  static constexpr int kBits = 8;
};
template <>
struct Codec<FloatBytes> {
  using Decoder = FloatBytesDecoder;
  static constexpr int kBits = 8;
};

// Codes i .. i + kVector, where i is even.
template <int kBits>
inline Ints load_codes(const uint8_t* codes, int64_t i) {
  return kBits == 8 ? load_bytes(codes + i) : load_nibbles(codes + (i >> 1));
}

// What codes i .. i + kPair stand for, where i is even, as a pair of vectors. kSigned: some may be those of negative numbers.
template <int kBits, Order kOrder, bool kSigned, class Decoder>
inline void decode_pair(const Decoder& decoder, const uint8_t* codes, int64_t i, Floats& first, Floats& second) {
#if defined(__AVX512F__)
  if constexpr (kOrder == Order::kAlternating) {
    const Ints words = kBits == 8 ? load_byte_pairs(codes + i) : load_nibble_pairs(codes + (i >> 1));
    first = decoder.template of_pair<0, kSigned>(words);
    second = decoder.template of_pair<1, kSigned>(words);
    return;
  }
#endif
  first = decoder.template of<kSigned>(load_codes<kBits>(codes, i));
  second = decoder.template of<kSigned>(load_codes<kBits>(codes, i + kVector));
}

// Writes a group of integers, as `nearest` makes them, as codes.
template <int kBits, Order kOrder>
inline void store_codes(uint8_t* codes, const Ints* code, Zero zero) {
  if constexpr (kBits == 8) {
    store_bytes<kOrder>(codes, code, zero);
  } else {
    store_nibbles<kOrder>(codes, code, zero);
  }
}

// The codes of some groups of numbers, which `factor` brings to `units` times [-1, 1]; up to 1.5 times that where a block's
// scale was rounded to a subnormal float16.
template <Order kOrder, int kGroups, class Constants>
inline void encode_groups(const Constants& constants, uint8_t* codes, const float* values, float factor) {
  Ints code[kGroups][kGroupVectors];
#pragma GCC unroll 2
  for (int i = 0; i < kGroups; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kGroupVectors; ++j) {
      code[i][j] = nearest(constants, load<Floats>(values + i * kGroup + j * kVector) * factor);
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < kGroups; ++i) {
    constexpr int kBits = Codec<Constants>::kBits;
    store_codes<kBits, kOrder>(codes + i * (kGroup * kBits / 8), code[i], make_zero(constants.zero));
  }
}

}  // namespace momentum::cpu::MOMENTUM_ISA
