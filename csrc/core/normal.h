// Normal numbers from random words, after Box and Muller. Elements 2k and 2k + 1 of a tensor have one radius, from the word of
// the one, and the cosine and the sine of one angle, from the word of the other: sqrt(-2 log(x)), x = (a + 1) 2^-24 in (0, 1],
// and b 2^-23 half turns, where a and b are the upper 24 bits of the words. None is larger than sqrt(48 log(2)), 5.768. They
// are float32 numbers whatever the arithmetic type: a float64 copy of a tensor is moved by the same noise.
//
// The functions are polynomials in fused multiply-adds, and no other product meets a sum that a compiler might fuse it with:
// the bits are the same on every processor, and compilers make vectors of a loop over them. Coefficients minimise the largest
// weighted error (Lawson's iteration at 4000 Chebyshev nodes, in double) and are rounded to float. Over all 2^24 words the
// radius is within 1.7 units of 2^-24, relatively, cosine and sine within 1.4.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/math.h"

namespace momentum {

// The two of one pair of words.
struct NormalPair {
  float cosine, sine;
};

// x = 2^e (1 + f), 1 + f between the roots of 1/2 and 2, and -2 log(1 + f) = f^2 R(f) - 2 f, of which R of degree 8 leaves out
// 2^-27, relatively.
MOMENTUM_HD float normal_radius(uint32_t word) {
  constexpr uint32_t kRootOfHalf = 0x3f3504f3u;
  const uint32_t bits = bit_cast<uint32_t>(float(int32_t(word >> 8) + 1));
  const int32_t exponent = int32_t(bits - kRootOfHalf) >> 23;
  const float f = bit_cast<float>(bits - (uint32_t(exponent) << 23)) - 1.0f;
  float r = 0.15243712f;
  r = math::fma(r, f, -0.25808987f);
  r = math::fma(r, f, 0.2648597f);
  r = math::fma(r, f, -0.28363624f);
  r = math::fma(r, f, 0.33218163f);
  r = math::fma(r, f, -0.4000395f);
  r = math::fma(r, f, 0.50003165f);
  r = math::fma(r, f, -0.6666665f);
  r = math::fma(r, f, 0.99999976f);
  const float square = math::fma(f * f, r, -2.0f * f);
  return math::sqrt(math::fma(float(exponent - 24), -1.38629436f, square));
}

// The angle is some quarter turns and y half turns, |y| <= 1/4, both exact. sin(pi y) = y (pi + y^2 S(y^2)) and
// cos(pi y) = 1 + y^2 C(y^2), to 2^-27 and 2^-33, relatively.
MOMENTUM_HD NormalPair normal_direction(uint32_t word) {
  const uint32_t position = word >> 8, quarter = (position + (1u << 21)) >> 22;
  const float y = float(int32_t(position - (quarter << 22))) * 0x1p-23f;
  const float z = y * y;
  float s = -0.58941878f;
  s = math::fma(s, z, 2.5498052f);
  s = math::fma(s, z, -5.167709f);
  s = math::fma(s, z, -8.742278e-08f);  // pi less its float
  const float sine = math::fma(y, 3.14159274f, y * s);
  float c = 0.23136423f;
  c = math::fma(c, z, -1.3350506f);
  c = math::fma(c, z, 4.0587076f);
  c = math::fma(c, z, -4.934802f);
  const float cosine = math::fma(c, z, 1.0f);
  const bool odd = (quarter & 1u) != 0;
  const uint32_t first = bit_cast<uint32_t>(odd ? sine : cosine), second = bit_cast<uint32_t>(odd ? cosine : sine);
  return {bit_cast<float>(first ^ (((quarter + 1u) & 2u) << 30)), bit_cast<float>(second ^ ((quarter & 2u) << 30))};
}

MOMENTUM_HD NormalPair normal_pair(uint32_t first, uint32_t second) {
  const float radius = normal_radius(first);
  const NormalPair direction = normal_direction(second);
  return {radius * direction.cosine, radius * direction.sine};
}

}  // namespace momentum
