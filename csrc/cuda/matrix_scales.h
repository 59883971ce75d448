// States with a scale for each row and column of a matrix or tile, on the GPU.
//
// The scales are maxima of the new state, so a launch of the same kernel finds them first, without storing anything else: with
// atomic maxima of bits, whose order does not matter.
#pragma once

#include "cuda/blocks.h"

namespace momentum::cuda {

// Where an element is.
struct Place {
  int64_t row, col;
};

__device__ __forceinline__ Place place_of(int64_t cols, int64_t i) {
  const int64_t row = i / cols;
  return {row, i - row * cols};
}

// Calls use(v, row, col) for `count` of V elements from `place` on.
template <int V, class Use>
__device__ __forceinline__ void for_places(int64_t cols, Place place, int64_t count, Use&& use) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v >= count) continue;
    use(v, place.row, place.col);
    if (++place.col == cols) {
      place.col = 0;
      ++place.row;
    }
  }
}

__device__ __forceinline__ float matrix_scale(const MatrixScales& shape, const float* scales, int64_t row, int64_t col) {
  return formats::smaller_scale(scales[shape.row_scale(row, col)], scales[shape.column_scale(row, col)]);
}

// The scale of each of `count` of V elements; 0 for the others.
template <int V>
__device__ __forceinline__ void load_matrix_scales(const MatrixScales& shape, const void* base, Place place, int64_t count,
                                                   float* scales) {
  ptx::assume_global(base);
#pragma unroll
  for (int v = 0; v < V; ++v) scales[v] = 0.0f;
  for_places<V>(shape.cols, place, count, [&](int v, int64_t row, int64_t col) {
    scales[v] = matrix_scale(shape, static_cast<const float*>(base), row, col);
  });
}

// Raises the scales, as bits. Reading before the atomic operation spares nearly all of them: a maximum changes seldom.
template <int V>
__device__ __forceinline__ void raise_scales(const MatrixScales& shape, float* base, Place place, int64_t count,
                                             const float* values) {
  auto* scales = reinterpret_cast<uint32_t*>(base);
  const auto raise = [&](int64_t scale, uint32_t bits) {
    if (bits > ptx::load_relaxed(scales + scale)) atomicMax(scales + scale, bits);
  };
  for_places<V>(shape.cols, place, count, [&](int v, int64_t row, int64_t col) {
    const uint32_t bits = bit_cast<uint32_t>(values[v]) & 0x7fffffffu;
    raise(shape.row_scale(row, col), bits);
    raise(shape.column_scale(row, col), bits);
  });
}

// Brings elements to [-1, 1].
template <int V>
__device__ __forceinline__ void divide_by_scales(const MatrixScales& shape, const float* scales, Place place, int64_t count,
                                                 float* values) {
  float each[V];
  load_matrix_scales<V>(shape, scales, place, count, each);
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = formats::divide_by_scale(values[v], each[v]);
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
