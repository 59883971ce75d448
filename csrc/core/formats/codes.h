// Codes of 4 and 8 bits for numbers in [-1, 1]: what a block-scaled state stores instead of floats.
//
// Dynamic codes (Dettmers 2015; the "dynamic exponent" tables of Li et al. 2023) spend their bits on decades: the magnitude
// number K in [2^e, 2^(e+1)) is the middle of one of 2^e equal parts of the decade that ends at 10^(e - top),
//     value(K) = (18 K + 9 - 2^(e+4)) 5^e (10^-(top+1) / 2),   value(2^(top+1)) = 1,
// so no table is needed: the bracket is an exact integer and 5^e is exact, and every backend computes the same bits.
// Nearest codes follow from the thresholds between decades and one fused line within a decade.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/math.h"

namespace momentum::formats {

enum class CodeMap : uint8_t {
  kNone = 0,
  kDynamic4 = 1,          // signed: 0, 1, +-7 magnitudes below 1; -1 is clipped to -0.8875
  kDynamic4MinusOne = 2,  // the same with -1 in place of -0.0055
  kUnsignedDynamic4 = 3,
  kLinear4 = 4,  // unsigned, without zero: (code + 1) / 16
  kDynamic8 = 5,
  kUnsignedDynamic8 = 6,
  kLinear8 = 7,  // signed and symmetric: int8(code) / 127
  kFloat8 = 8,   // E4M3 (finite, NaN), divided by 448
};
inline constexpr int kCodeMaps = 9;

MOMENTUM_HD constexpr int code_bits(CodeMap map) { return map >= CodeMap::kDynamic8 ? 8 : 4; }

MOMENTUM_HD constexpr int64_t code_bytes(CodeMap map, int64_t numel) { return code_bits(map) == 8 ? numel : (numel + 1) / 2; }

// Whether codes stand for magnitudes only.
MOMENTUM_HD constexpr bool is_unsigned(CodeMap map) {
  return map == CodeMap::kUnsignedDynamic4 || map == CodeMap::kLinear4 || map == CodeMap::kUnsignedDynamic8;
}

MOMENTUM_HD constexpr bool is_dynamic(CodeMap map) {
  return map != CodeMap::kLinear4 && map != CodeMap::kLinear8 && map != CodeMap::kFloat8;
}

namespace dynamic {

// The last decade of a map.
MOMENTUM_HD constexpr int top(CodeMap map) { return (code_bits(map) == 8 ? 6 : 2) + (is_unsigned(map) ? 1 : 0); }

// The code of zero: signed magnitudes count from here in both directions; unsigned code c is magnitude c + 1.
MOMENTUM_HD constexpr int zero(CodeMap map) { return code_bits(map) == 8 ? 127 : 7; }

// 10^-(top+1) / 2, the unit in which the values of decade e are 5^e times integers.
MOMENTUM_HD constexpr float unit(int top) { return top == 2 ? 0.5e-3f : top == 3 ? 0.5e-4f : top == 6 ? 0.5e-7f : 0.5e-8f; }

MOMENTUM_HD constexpr float power_of_five(int e) {
  return float((e & 1 ? 5 : 1) * (e & 2 ? 25 : 1) * (e & 4 ? 625 : 1) * (e & 8 ? 390625 : 1));
}

MOMENTUM_HD constexpr int decade(int magnitude) { return 31 - __builtin_clz(unsigned(magnitude)); }

// magnitude in [1, 2^(top+1)].
MOMENTUM_HD constexpr float value(int magnitude, int top) {
  const int e = decade(magnitude);
  const float v = float(18 * magnitude + 9 - (16 << e)) * (power_of_five(e) * unit(top));
  return v < 1.0f ? v : 1.0f;
}

// Halfway between the last magnitude below 2^e and 2^e itself; for the first one, between it and zero.
MOMENTUM_HD constexpr float threshold(int e, int top, bool first) {
  return 0.5f * ((first ? 0.0f : value((1 << e) - 1, top)) + value(1 << e, top));
}

// A number is line_factor * |x| + line_offset in units of magnitudes of decade e, rounded down.
MOMENTUM_HD constexpr float line_factor(int e, int top) { return 1.0f / (18.0f * (power_of_five(e) * unit(top))); }
MOMENTUM_HD constexpr float line_offset(int e) { return float(16 << e) / 18.0f; }

// The magnitude nearest to a >= 0: 0, or 1 for unsigned maps, stands for zero.
MOMENTUM_HD int nearest(float a, int top, bool without_sign) {
  const int first = without_sign ? 1 : 0;
  int e = first - 1;
  MOMENTUM_UNROLL
  for (int i = 0; i <= 8; ++i) {
    if (i >= first && i <= top + 1) e += a > threshold(i, top, i == first) ? 1 : 0;
  }
  const int d = e < first ? first : e;
  int magnitude = int(line_factor(d, top) * a + line_offset(d));
  const int low = 1 << d, high = d > top ? low : 2 * low - 1;
  magnitude = magnitude < low ? low : magnitude > high ? high : magnitude;
  return e < first ? first : magnitude;
}

}  // namespace dynamic

namespace float8 {

// E4M3 without infinities: 1 sign bit, 4 exponent bits (bias 7), 3 mantissa bits; 0x7f is NaN.
inline constexpr float kLargest = 448.0f;

MOMENTUM_HD constexpr float load(uint32_t code) {
  const uint32_t magnitude = code & 0x7fu;
  const float finite = bit_cast<float>(magnitude << 20) * 0x1p120f;
  const float value = magnitude == 0x7fu ? bit_cast<float>(0x7fc00000u) : finite;
  return (code & 0x80u) != 0 ? -value : value;
}

// Nearest, ties to even; beyond the largest finite number it stays there.
MOMENTUM_HD uint32_t store(float x) {
  const uint32_t u = bit_cast<uint32_t>(x);
  const uint32_t magnitude = u & 0x7fffffffu;
  // Below 2^-6 the float adder rounds: after adding 2^14 the last place of the sum is 2^-9, the subnormal step.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 16384.0f) - 0x46800000u;
  const uint32_t normal = (magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
  uint32_t code = magnitude < 0x3c800000u ? subnormal : normal;
  code = magnitude >= 0x43e00000u ? 0x7eu : code;
  code = x != x ? 0x7fu : code;
  return code | ((u >> 24) & 0x80u);
}

}  // namespace float8

// The maps that are not dynamic.
namespace plain {

MOMENTUM_HD constexpr float decode(CodeMap map, uint32_t code) {
  if (map == CodeMap::kLinear4) return float(code + 1) * 0.0625f;
  if (map == CodeMap::kLinear8) return float(int8_t(code)) * (1.0f / 127.0f);
  return float8::load(code) * (1.0f / float8::kLargest);
}

MOMENTUM_HD uint32_t nearest(CodeMap map, float x) {
  if (map == CodeMap::kLinear4) {
    const int code = int(16.0f * x + 0.5f) - 1;
    return uint32_t(code < 0 ? 0 : code > 15 ? 15 : code);
  }
  if (map == CodeMap::kLinear8) {
    const int code = int(127.0f * x + math::copysign(0.5f, x));
    return uint32_t(code < -127 ? -127 : code > 127 ? 127 : code) & 0xffu;
  }
  return float8::store(float8::kLargest * x);
}

}  // namespace plain

// The number a code stands for, in [-1, 1].
MOMENTUM_HD constexpr float decode(CodeMap map, uint32_t code) {
  if (!is_dynamic(map)) return plain::decode(map, code);
  const int top = dynamic::top(map);
  if (is_unsigned(map)) return code == 0 ? 0.0f : dynamic::value(int(code) + 1, top);
  const int steps = int(code) - dynamic::zero(map);
  const int skipped = map == CodeMap::kDynamic4MinusOne && steps < 0 ? 1 : 0;
  const int magnitude = (steps < 0 ? -steps : steps) + skipped;
  const float v = magnitude == 0 ? 0.0f : dynamic::value(magnitude, top);
  return steps < 0 ? -v : v;
}

// The nearest code; x may exceed [-1, 1] by rounding. NaN becomes some code: its block's scale is NaN.
MOMENTUM_HD uint32_t nearest_code(CodeMap map, float x) {
  if (!is_dynamic(map)) return plain::nearest(map, x);
  const int top = dynamic::top(map);
  if (is_unsigned(map)) return uint32_t(dynamic::nearest(x, top, true) - 1);
  const int zero = dynamic::zero(map);
  const int magnitude = dynamic::nearest(math::abs(x), top, false);
  if (!(x < 0.0f)) return uint32_t(zero + magnitude);
  if (map == CodeMap::kDynamic4MinusOne) {
    // The negative magnitudes start at the second: the threshold to zero is half of that one.
    const bool none = -x <= 0.5f * dynamic::value(2, top);
    return uint32_t(none ? zero : zero + 1 - (magnitude < 2 ? 2 : magnitude));
  }
  return uint32_t(zero - (magnitude < zero ? magnitude : zero));
}

// The code beside `code` in the order of the numbers; `code` itself at the end of the table.
MOMENTUM_HD uint32_t neighbour(CodeMap map, uint32_t code, bool up) {
  if (map == CodeMap::kFloat8) {
    const uint32_t magnitude = code & 0x7fu;
    if (magnitude == 0) return up ? 0x01u : 0x81u;
    const bool grows = up == ((code & 0x80u) == 0);
    if (grows) return magnitude == 0x7eu ? code : code + 1;
    return code - 1;
  }
  if (map == CodeMap::kLinear8) {
    const int next = int(int8_t(code)) + (up ? 1 : -1);
    return next < -127 || next > 127 ? code : uint32_t(next) & 0xffu;
  }
  const int next = int(code) + (up ? 1 : -1);
  return next < 0 || next >= (1 << code_bits(map)) ? code : uint32_t(next);
}

// Given x, the nearest code, that code's number, and its neighbour towards x with its number: one of the two, the upper one
// with the probability that makes the expected value x. `random` supplies the low 16 bits.
MOMENTUM_HD uint32_t choose_code(float x, uint32_t near, float at_near, uint32_t next, float at_next, uint32_t random) {
  if (next == near || at_near == x) return near;
  const float share = (x - at_near) / (at_next - at_near);  // of the way to the neighbour
  return share + float(random & 0xffffu) * 0x1p-16f >= 1.0f ? next : near;
}

MOMENTUM_HD uint32_t stochastic_code(CodeMap map, float x, uint32_t random) {
  const uint32_t near = nearest_code(map, x);
  const float at = decode(map, near);
  const uint32_t next = neighbour(map, near, x > at);
  return choose_code(x, near, at, next, decode(map, next), random);
}

}  // namespace momentum::formats
