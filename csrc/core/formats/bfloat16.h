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
};

}  // namespace momentum::formats
