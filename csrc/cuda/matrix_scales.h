// States with a scale for each row and column of a matrix or tile, on the GPU.
//
// The scales are maxima of the new state, so a launch of the same kernel finds them first, without storing anything else: with
// atomic maxima of bits, whose order does not matter.
#pragma once

#include "cuda/blocks.h"

namespace momentum::cuda {

// Calls use(v, row, col) for the elements i .. i + V of a matrix that lie before `end`.
template <int V, class Use>
__device__ __forceinline__ void for_places(int64_t cols, int64_t i, int64_t end, Use&& use) {
  int64_t row = i / cols, col = i - row * cols;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (i + v >= end) continue;
    use(v, row, col);
    if (++col == cols) {
      col = 0;
      ++row;
    }
  }
}

__device__ __forceinline__ float matrix_scale(const MatrixScales& shape, const float* scales, int64_t row, int64_t col) {
  return formats::smaller_scale(scales[shape.row_scale(row, col)], scales[shape.column_scale(row, col)]);
}

// The scale of each of the elements i .. i + V; 0 beyond the end.
template <int V>
__device__ __forceinline__ void load_matrix_scales(const MatrixScales& shape, const void* base, int64_t i, int64_t numel,
                                                   float* scales) {
  ptx::assume_global(base);
#pragma unroll
  for (int v = 0; v < V; ++v) scales[v] = 0.0f;
  for_places<V>(shape.cols, i, numel, [&](int v, int64_t row, int64_t col) {
    scales[v] = matrix_scale(shape, static_cast<const float*>(base), row, col);
  });
}

// Raises the scales, as bits. Reading before the atomic operation spares nearly all of them: a maximum changes seldom.
template <int V>
__device__ __forceinline__ void raise_scales(const MatrixScales& shape, float* base, int64_t i, int64_t numel,
                                             const float* values) {
  auto* scales = reinterpret_cast<uint32_t*>(base);
  const auto raise = [&](int64_t place, uint32_t bits) {
    if (bits > __ldcg(scales + place)) atomicMax(scales + place, bits);
  };
  for_places<V>(shape.cols, i, numel, [&](int v, int64_t row, int64_t col) {
    const uint32_t bits = bit_cast<uint32_t>(values[v]) & 0x7fffffffu;
    raise(shape.row_scale(row, col), bits);
    raise(shape.column_scale(row, col), bits);
  });
}

// Codes of elements i .. i + 4 of a matrix.
__device__ __forceinline__ uint32_t encode_matrix_codes(const BlockCodec& c, const MatrixScales& shape, const float* scales,
                                                        int64_t i, int64_t numel, const float* values, const uint32_t* random) {
  const int bits = formats::code_bits(c.format.map);
  float each[kBlockGroup];
  load_matrix_scales<kBlockGroup>(shape, scales, i, numel, each);
  uint32_t raw = 0;
#pragma unroll
  for (int v = 0; v < kBlockGroup; ++v) {
    const float x = formats::divide_by_scale(values[v], each[v]);
    const uint32_t code = c.format.stochastic ? stochastic_code(c, x, random[v]) : nearest_code(c, x);
    raw |= i + v < numel ? code << (bits * v) : 0u;
  }
  return raw;
}

// Elements i .. i + 4 of a state, wherever they begin: what reductions read.
template <int V>
__device__ __forceinline__ void decode_anywhere(const BlockCodec& c, const void* base, const void* scales, int64_t rows,
                                                int64_t cols, int64_t i, int64_t end, float* values) {
  ptx::assume_global(base);
  ptx::assume_global(scales);
  const auto* bytes = static_cast<const uint8_t*>(base);
  const int bits = formats::code_bits(c.format.map);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    values[v] = 0.0f;
    const int64_t element = i + v;
    if (element >= end) continue;
    const uint32_t code = bits == 8 ? bytes[element] : (uint32_t(bytes[element / 2]) >> (element % 2 * 4)) & 15u;
    float scale;
    if (has_matrix_scales(c.format, rows, cols)) {
      const int64_t row = element / cols;
      const MatrixScales shape = matrix_scales(c.format, rows, cols);
      scale = matrix_scale(shape, static_cast<const float*>(scales), row, element - row * cols);
    } else {
      scale = formats::load_scale(scales, c.format.scale_dtype, element >> c.block_shift);
    }
    values[v] = decode_code(c, code) * scale;
  }
}

}  // namespace momentum::cuda
