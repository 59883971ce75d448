// float16 storage (IEEE binary16): rounding to nearest even, or stochastic; subnormals are kept.
//
// Written with integer arithmetic and one exact multiplication, so that it vectorises on every instruction set and gives the
// same bits on CPU and GPU.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/dtype.h"

namespace momentum::formats {

struct Float16 {
  static constexpr DType kDType = DType::kFloat16;
  using Storage = uint16_t;

  template <class T>
  MOMENTUM_HD static T load(uint16_t stored) {
    const uint32_t magnitude = uint32_t(stored & 0x7fffu) << 13;
    // Moves the exponent bias from 15 to 127; exact, also for subnormals.
    const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
    const uint32_t bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : finite;
    return T(bit_cast<float>(bits | (uint32_t(stored & 0x8000u) << 16)));
  }

  template <class T>
  MOMENTUM_HD static uint16_t store(T value) {
    const float x = float(value);
    const uint32_t u = bit_cast<uint32_t>(x);
    const uint32_t magnitude = u & 0x7fffffffu;
    // Below 2^-14 the float adder rounds for us: after adding 0.5 the last place of the sum is 2^-24, binary16's subnormal
    // step.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x47800000u ? 0x7c00u : half;  // 65536 and above; 65520 to 65536 round up to it by themselves
    half = x != x ? 0x7e00u : half;
    return uint16_t(half | ((u >> 16) & 0x8000u));
  }

  // Rounds away from zero with probability equal to the discarded fraction; `random` supplies the low 16 bits.
  template <class T>
  MOMENTUM_HD static uint16_t store_stochastic(T value, uint32_t random) {
    const float x = float(value);
    const uint32_t u = bit_cast<uint32_t>(x);
    const uint32_t magnitude = u & 0x7fffffffu;
    const uint32_t draw = random & 0xffffu;
    // Subnormal results: |x| in units of 2^-24, of which `cut` bits are the fraction; beyond 47 of them no draw rounds up.
    const uint32_t exponent = magnitude >> 23;
    const uint64_t mantissa = (magnitude & 0x7fffffu) | (exponent != 0 ? 0x800000u : 0u);
    const uint32_t cut = exponent < 79u ? 47u : 126u - (exponent < 112u ? exponent : 112u);
    const uint64_t addend = cut >= 16u ? uint64_t(draw) << (cut - 16u) : uint64_t(draw >> (16u - cut));
    const uint32_t subnormal = uint32_t((mantissa + addend) >> cut);
    const uint32_t normal = (magnitude - 0x38000000u + (draw >> 3)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = half > 0x7c00u ? 0x7c00u : half;
    const bool finite = magnitude < 0x47800000u;
    return finite ? uint16_t(half | ((u >> 16) & 0x8000u)) : store(value);
  }
};

}  // namespace momentum::formats
