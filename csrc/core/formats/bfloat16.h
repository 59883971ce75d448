// bfloat16 storage: the upper half of a float32; rounding to nearest even, or stochastic.
//
// Integer arithmetic on purpose: it vectorises on every instruction set and gives the same bits on CPU and GPU.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/dtype.h"

namespace momentum::formats {

struct BFloat16 {
  static constexpr DType kDType = DType::kBFloat16;
  using Storage = uint16_t;

  template <class T>
  MOMENTUM_HD static T load(uint16_t stored) {
    return T(bit_cast<float>(uint32_t(stored) << 16));
  }

  // NaN becomes the quiet NaN 0x7fc0, as in torch.
  template <class T>
  MOMENTUM_HD static uint16_t store(T value) {
    const float x = float(value);
    const uint32_t u = bit_cast<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return uint16_t(x != x ? 0x7fc0u : rounded);
  }

  // Rounds up with probability equal to the discarded fraction; `random` supplies the low 16 bits. Inf and NaN are kept.
  template <class T>
  MOMENTUM_HD static uint16_t store_stochastic(T value, uint32_t random) {
    const uint32_t u = bit_cast<uint32_t>(float(value));
    const bool finite = (u & 0x7f800000u) != 0x7f800000u;
    const uint32_t rounded = (u + (random & 0xffffu)) >> 16;
    return finite ? uint16_t(rounded) : store(value);
  }

  // A bfloat16 and the eight bits below it make a float of 24 bits: the first 24 of a float32 are 256 high + low, where high is
  // the nearest bfloat16 (halves away from zero) and low its signed distance.
  struct Split {
    uint16_t high;
    int8_t low;
  };

  MOMENTUM_HD static float join(uint16_t high, int8_t low) {
    return bit_cast<float>((uint32_t(high) << 16) + (uint32_t(int32_t(low)) << 8));
  }

  // `addend` decides the rounding to 24 bits: see the two below.
  MOMENTUM_HD static Split split(float value, uint32_t addend) {
    const uint32_t u = bit_cast<uint32_t>(value);
    const bool finite = (u & 0x7f800000u) != 0x7f800000u;
    const uint32_t first = (u + addend) >> 8;
    const uint32_t high = (first + 0x80u) >> 8;
    const uint32_t low = first - (high << 8);
    return {finite ? uint16_t(high) : store(value), finite ? int8_t(low) : int8_t(0)};
  }
  MOMENTUM_HD static uint32_t nearest_addend(float value) { return 0x7fu + ((bit_cast<uint32_t>(value) >> 8) & 1u); }
  MOMENTUM_HD static uint32_t stochastic_addend(uint32_t random) { return random & 0xffu; }
};

}  // namespace momentum::formats
