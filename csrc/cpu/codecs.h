// Codes of quantised states, a vector at a time: what they stand for, and the nearest to a number. The same values and codes as
// core/formats/codes.h says.
#pragma once

#include "core/formats/codes.h"
#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {

using formats::CodeMap;

// Maps of 4 bits: values and thresholds in one register each; the nearest code by binary search.
template <CodeMap kMap>
struct FourBits {
  alignas(64) float values[16] = {};
  // What a number is compared with at each step of the search, by the codes that are still possible.
  float middle = 0;
  alignas(64) float eighths[16] = {};
  alignas(64) float quarters[16] = {};
  alignas(64) float halves[16] = {};

  constexpr FourBits() {
    float above[16] = {};  // [i]: between codes i and i + 1
    for (int i = 0; i < 16; ++i) values[i] = formats::decode(kMap, uint32_t(i));
    for (int i = 0; i < 15; ++i) above[i] = 0.5f * (values[i] + values[i + 1]);
    middle = above[7];
    for (int i = 0; i < 16; i += 8) eighths[i] = above[i + 3];
    for (int i = 0; i < 16; i += 4) quarters[i] = above[i + 1];
    for (int i = 0; i < 16; i += 2) halves[i] = above[i];
  }
};

// The constants of a dynamic map of 8 bits, by decade. Decade `first - 1` is zero.
template <CodeMap kMap>
struct Decades {
  static constexpr int kTop = formats::dynamic::top(kMap);
  static constexpr int kFirst = formats::is_unsigned(kMap) ? 1 : 0;
  static constexpr int kCount = kTop + 2 - kFirst;  // thresholds

  float thresholds[kCount] = {};
  // By the number of thresholds a magnitude is above: its line, and the last magnitude of its decade. A decade's first
  // magnitude needs no such bound: a threshold is only 0.3 of the line's unit below it.
  alignas(64) float factor[16] = {};
  alignas(64) float offset[16] = {};
  alignas(64) int32_t high[16] = {};
  // By the decade, as the exponent of a float shows it: (127 + e) % 16.
  alignas(64) float scale[16] = {};
  alignas(64) float bias[16] = {};
  // By the binade of a magnitude, the last but one ending at 1: the threshold in it, and how many lie below.
  alignas(64) float in_binade[32] = {};
  alignas(64) int32_t below_binade[32] = {};

  constexpr Decades() {
    high[0] = kFirst;
    offset[0] = float(kFirst);
    for (int i = 0; i < kCount; ++i) {
      const int e = kFirst + i;
      thresholds[i] = formats::dynamic::threshold(e, kTop, i == 0);
      const bool alone = e > kTop;  // the last magnitude, whatever the number
      factor[i + 1] = alone ? 0.0f : formats::dynamic::line_factor(e, kTop);
      offset[i + 1] = alone ? float(1 << e) : formats::dynamic::line_offset(e);
      high[i + 1] = alone ? 1 << e : (2 << e) - 1;
    }
    for (int e = 0; e <= kTop; ++e) {
      scale[(127 + e) % 16] = formats::dynamic::power_of_five(e) * formats::dynamic::unit(kTop);
      bias[(127 + e) % 16] = float(9 - (16 << e));
    }
    scale[(128 + kTop) % 16] = 1.0f;  // the last magnitude alone: its value is exactly 1
    bias[(128 + kTop) % 16] = float(1 - 18 * (2 << kTop));
    float begin = 1.0f;
    for (int i = 31; i >= 0; --i, begin *= 0.5f) {
      in_binade[i] = 4.0f;  // none
      for (int j = 0; j < kCount; ++j) {
        if (thresholds[j] < begin) ++below_binade[i];
        if (thresholds[j] >= begin && thresholds[j] < 2 * begin) in_binade[i] = thresholds[j];
      }
    }
  }
};

// How many thresholds lie below each of the magnitudes, which are at least kTiny.
constexpr float kTiny = 0x1p-31f;

template <CodeMap kMap>
inline Ints thresholds_below(Floats a) {
  static constexpr Decades<kMap> kTable;
#if defined(__AVX512F__)
  const Ints binade = as_ints(a) >> 23;  // the low five bits of an index count, and are 0 at kTiny
  const Floats threshold = __builtin_shuffle(load<Floats>(kTable.in_binade), load<Floats>(kTable.in_binade + 16), binade);
  const Ints below = __builtin_shuffle(load<Ints>(kTable.below_binade), load<Ints>(kTable.below_binade + 16), binade);
  return count_where_above(below, a, threshold);
#else
  Ints below = {};
  for (int i = 0; i < kTable.kCount; ++i) below -= a > kTable.thresholds[i];
  return below;
#endif
}

template <CodeMap kMap>
inline Ints nearest_magnitude(Floats a) {
  static constexpr Decades<kMap> kTable;
  const Ints above = thresholds_below<kMap>(a);
  const Floats line = lookup(load_table<Floats>(kTable.factor), above) * a + lookup(load_table<Floats>(kTable.offset), above);
  const Ints m = __builtin_convertvector(line, Ints), high = lookup(load_table<Ints>(kTable.high), above);
  return m > high ? high : m;
}

// From codes to numbers, for one block whose scale is 0, or not NaN and at least 2^-96.
template <CodeMap kMap>
class Decoder {
 public:
  explicit Decoder(float scale) : scale_(scale) {
    if constexpr (kIsTable) {
      static constexpr FourBits<kMap> kTable;
      table_ = load_table<Floats>(kTable.values) * scale;
    } else if constexpr (formats::is_dynamic(kMap)) {
      static constexpr Decades<kMap> kTable;
      table_ = load_table<Floats>(kTable.scale) * scale;
    }
  }

  Floats operator()(Ints code) const {
    if constexpr (kIsTable) {
      return lookup(table_, code);
    } else if constexpr (kMap == CodeMap::kLinear8) {
      return __builtin_convertvector((code << 24) >> 24, Floats) * (1.0f / 127.0f) * scale_;
    } else if constexpr (kMap == CodeMap::kFloat8) {
      const Ints m = code & 0x7f;
      const Floats finite = as_floats(m << 20) * 0x1p120f;
      const Floats value = m == 0x7f ? as_floats(Ints{} + 0x7fc00000) : finite;
      return as_floats(as_ints(value) | ((code & 0x80) << 24)) * (1.0f / formats::float8::kLargest) * scale_;
    } else if constexpr (formats::is_unsigned(kMap)) {
      return as_floats(as_ints(value(code + 1)) & (code != 0));
    } else {
      const Ints steps = code - formats::dynamic::zero(kMap);
      const Ints m = steps < 0 ? -steps : steps;
      const Ints bits = as_ints(value(m)) & (m != 0);
      return as_floats(bits | (steps & int32_t(0x80000000)));
    }
  }

 private:
  static constexpr bool kIsTable = formats::code_bits(kMap) == 4;

  // m >= 1, or any number where the result is not used.
  Floats value(Ints m) const {
    static constexpr Decades<kMap> kTable;
    const Floats number = __builtin_convertvector(m, Floats);
    const Ints decade = as_ints(number) >> 23;
    return (18.0f * number + lookup(load_table<Floats>(kTable.bias), decade)) * lookup(table_, decade);
  }

  Table<Floats> table_ = {};
  float scale_;
};

// What numbers in [-1, 1] are multiplied by before `nearest`, so that the scale and it are one factor.
template <CodeMap kMap>
constexpr float kUnits = kMap == CodeMap::kLinear4   ? 16.0f
                         : kMap == CodeMap::kLinear8 ? 127.0f
                         : kMap == CodeMap::kFloat8  ? formats::float8::kLargest
                                                     : 1.0f;

// From such numbers to codes, of which negative ones mean 0. The numbers may be up to 1.5 times larger where a block's scale
// was rounded to a subnormal float16.
template <CodeMap kMap>
inline Ints nearest(Floats x) {
  if constexpr (kMap == CodeMap::kLinear4) {
    return round_to_int(at_most(x - 1.0f, 15.0f));
  } else if constexpr (formats::code_bits(kMap) == 4) {
    static constexpr FourBits<kMap> kTable;
    Ints code = set_where_above(Ints{}, x, Floats{} + kTable.middle, 8);
    code = set_where_above(code, x, lookup(load_table<Floats>(kTable.eighths), code), 4);
    code = set_where_above(code, x, lookup(load_table<Floats>(kTable.quarters), code), 2);
    return set_where_above(code, x, lookup(load_table<Floats>(kTable.halves), code), 1);
  } else if constexpr (kMap == CodeMap::kLinear8) {
    return round_to_int(at_most(at_least(x, -127.0f), 127.0f)) & 0xff;
  } else if constexpr (kMap == CodeMap::kFloat8) {
    const Ints u = as_ints(x);
    const Ints m = u & 0x7fffffff;
    const Ints subnormal = as_ints(as_floats(m) + 16384.0f) - 0x46800000;
    const Ints normal = (m - 0x3c000000 + 0x7ffff + ((m >> 20) & 1)) >> 20;
    Ints code = m < 0x3c800000 ? subnormal : normal;
    code = m >= 0x43e00000 ? Ints{} + 0x7e : code;
    return code | ((u >> 24) & 0x80);
  } else if constexpr (formats::is_unsigned(kMap)) {
    return nearest_magnitude<kMap>(at_least(x, kTiny)) - 1;
  } else {
    // -1 has no code of its own: it becomes negative.
    return formats::dynamic::zero(kMap) + with_sign_of(nearest_magnitude<kMap>(magnitude_at_least(x, kTiny)), x);
  }
}

template <CodeMap kMap>
inline Ints load_codes(const uint8_t* codes, int64_t i) {
  return formats::code_bits(kMap) == 8 ? load_bytes(codes + i) : load_nibbles(codes + (i >> 1));
}

// The codes of a group.
template <CodeMap kMap>
inline void encode_group(uint8_t* codes, const float* values, float factor) {
  Ints code[kGroupVectors];
#pragma GCC unroll 16
  for (int j = 0; j < kGroupVectors; ++j) code[j] = nearest<kMap>(load<Floats>(values + j * kVector) * factor);
  formats::code_bits(kMap) == 8 ? store_bytes(codes, code) : store_nibbles(codes, code);
}

}  // namespace momentum::cpu::MOMENTUM_ISA
