// Block-scaled states on the CPU: whole tiles between codes and float.
#pragma once

#include <cstdint>

#include "core/formats/blocks.h"

#ifndef MOMENTUM_ISA
#error "compiled once per instruction set, with MOMENTUM_ISA defined"
#endif

namespace momentum::cpu::MOMENTUM_ISA {

// Elements [begin, begin + n) of a state; `begin` is a multiple of the block, and n too unless the state ends there.
void decode_blocks(const StateFormat& format, const void* codes, const void* scales, int64_t begin, int n, float* out);

// `random` holds one word per element where the format rounds stochastically.
void encode_blocks(const StateFormat& format, void* codes, void* scales, int64_t begin, int n, const float* values,
                   const uint32_t* random);

}  // namespace momentum::cpu::MOMENTUM_ISA
