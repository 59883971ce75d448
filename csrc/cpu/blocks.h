// Block-scaled states on the CPU: whole tiles between codes and float.
#pragma once

#include <cstdint>

#include "core/formats/blocks.h"
#include "cpu/lanes.h"

#ifndef MOMENTUM_ISA
#error "compiled once per instruction set, with MOMENTUM_ISA defined"
#endif

namespace momentum::cpu::MOMENTUM_ISA {

// Elements [begin, begin + n) of a state; `begin` is a multiple of the block, and n too unless the state ends there.
void decode_blocks(const StateFormat& format, const void* codes, const void* scales, int64_t begin, int n, float* out);

// The same with the scales of a matrix. `begin` is a multiple of 2.
void decode_matrix(const StateFormat& format, const MatrixScales& shape, const void* codes, const float* scales, int64_t begin,
                   int n, float* out);
void encode_matrix(const StateFormat& format, const MatrixScales& shape, void* codes, const float* scales, int64_t begin, int n,
                   const float* values, const uint32_t* random);
// Raises the scales, as bits, to the magnitudes of the elements.
void raise_scales(const MatrixScales& shape, int64_t begin, int n, const float* values, uint32_t* scales);

// The scales that the blocks of `values` will have. Apart from `encode_blocks` because each is a long chain of dependent
// instructions: the chains of several blocks and states overlap when they are started one after another.
void find_block_scales(const StateFormat& format, int n, const float* values, formats::BlockScale* found);

// The same out of the largest magnitudes of runs of elements, in units of `unit`, as bits and lane by lane; a block is a whole
// number of runs.
void find_block_scales(const StateFormat& format, int n, int run, float unit, const Ints* most, formats::BlockScale* found);

// Stores codes and scales. `random` holds one word per element where the format rounds stochastically. Values in alternating
// order are whole pairs.
void encode_blocks(const StateFormat& format, void* codes, void* scales, int64_t begin, int n, const float* values, Order order,
                   const formats::BlockScale* found, const uint32_t* random);

}  // namespace momentum::cpu::MOMENTUM_ISA
