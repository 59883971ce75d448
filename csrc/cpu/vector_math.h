// What rules may do with a number, on a vector register of them: see core/math.h. For AVX-512 alone: with half as many
// registers, half as wide, a step in vectors is no faster than the loop that the compiler makes of numbers.
#pragma once

#include "core/math.h"
#include "cpu/lanes.h"

#if defined(__AVX512F__)

namespace momentum::math {

template <>
struct Lanes<cpu::MOMENTUM_ISA::Floats> {
  using Floats = cpu::MOMENTUM_ISA::Floats;
  using Ints = cpu::MOMENTUM_ISA::Ints;

  MOMENTUM_HD static Floats sqrt(Floats x) {
    return reinterpret_cast<Floats>(_mm512_maskz_sqrt_ps(0xffff, cpu::MOMENTUM_ISA::raw(x)));
  }
  MOMENTUM_HD static Floats abs(Floats x) { return cpu::MOMENTUM_ISA::magnitude(x); }
  MOMENTUM_HD static Floats copysign(Floats magnitude, Floats sign) {
    const Ints bits = reinterpret_cast<Ints>(sign) & int32_t(0x80000000);
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(abs(magnitude)) | bits);
  }
};

}  // namespace momentum::math

namespace momentum::cpu::MOMENTUM_ISA {

// Numbers in storage, as formats::Float32 and formats::BFloat16 load and store them.
static inline Floats load_numbers(const float* from) { return load<Floats>(from); }
static inline void store_numbers(float* to, Floats x) { store(to, x); }

static inline Floats load_numbers(const uint16_t* from) {
  return as_floats(reinterpret_cast<Ints>(_mm512_maskz_cvtepu16_epi32(0xffff, load<__m256i>(from))) << 16);
}
static inline void store_numbers(uint16_t* to, Floats x) {
  typedef uint32_t Words __attribute__((vector_size(4 * kVector)));
  const Words u = reinterpret_cast<Words>(x);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Words stored = x != x ? Words{} + 0x7fc0u : rounded;
  store(to, _mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(stored)));
}

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
