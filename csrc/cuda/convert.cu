#include "cuda/access.h"
#include "cuda/convert.h"
#include "cuda/matrix_scales.h"
#include "cuda/param.h"

namespace momentum::cuda {
namespace {

constexpr int kConvertThreads = 256;
constexpr int64_t kMostBlocks = 16384;
constexpr int kPerWarp = 32 * kBlockGroups * kBlockGroup;

// A warp takes 256 elements at a time, as the map does.
__global__ void __launch_bounds__(kConvertThreads)
    convert_kernel(const Conversion __grid_constant__ c, const BlockCodec __grid_constant__ codec, bool values_aligned,
                   bool codes_aligned, bool find_maxima) {
  constexpr int V = kBlockGroup;
  const bool matrix = has_matrix_scales(c.format, c.rows, c.cols);
  const MatrixScales shape = matrix_scales(c.format, c.rows, c.cols);
  const int64_t warps = int64_t(gridDim.x) * (kConvertThreads / 32);
  for (int64_t warp = int64_t(blockIdx.x) * (kConvertThreads / 32) + threadIdx.x / 32; warp * kPerWarp < c.numel;
       warp += warps) {
    const int64_t first = warp * kPerWarp + int64_t(threadIdx.x % 32) * V;
    if (c.quantise) {
      float values[kBlockGroups][V];
#pragma unroll
      for (int j = 0; j < kBlockGroups; ++j) {
        decode_group<float, V>(c.dtype, load_group<V>(c.values, c.dtype, values_aligned, first + j * 32 * V, c.numel),
                               values[j]);
      }
      uint32_t random[kBlockGroups][V] = {};
      if (codec.format.stochastic) {
#pragma unroll
        for (int j = 0; j < kBlockGroups; ++j) {
          const PhiloxWords words = philox_group(c.seed, c.step, uint64_t(first + j * 32 * V) / V);
#pragma unroll
          for (int v = 0; v < V; ++v) random[j][v] = words.word[v];
        }
      }
      if (matrix) {
#pragma unroll
        for (int j = 0; j < kBlockGroups; ++j) {
          const int64_t i = first + j * 32 * V;
          const Place place = place_of(c.cols, i);
          auto* scales = static_cast<float*>(c.scales);
          if (find_maxima) {
            raise_scales<V>(shape, scales, place, c.numel - i, values[j]);
          } else {
            divide_by_scales<V>(shape, scales, place, c.numel - i, values[j]);
          }
        }
        if (find_maxima) continue;
      } else {
        scale_groups(codec, c.scales, first, c.numel, values);
      }
      store_groups(codec, c.codes, codes_aligned, first, c.numel, values, random);
    } else {
#pragma unroll
      for (int j = 0; j < kBlockGroups; ++j) {
        const int64_t i = first + j * 32 * V;
        if (i >= c.numel) continue;
        float values[V];
        const uint32_t raw = load_codes(codec, c.codes, codes_aligned, i, c.numel);
        if (matrix) {
          float each[V];
          load_matrix_scales<V>(shape, c.scales, place_of(c.cols, i), c.numel - i, each);
          decode_codes(codec, raw, 1.0f, values);
#pragma unroll
          for (int v = 0; v < V; ++v) values[v] *= each[v];
        } else {
          decode_codes(codec, raw, formats::load_scale(c.scales, codec.format.scale_dtype, i >> codec.block_shift), values);
        }
        store_group<V>(c.values, c.dtype, values_aligned, i, c.numel, encode_group<float, V>(c.dtype, values));
      }
    }
  }
}

bool is_aligned(const void* address, int bytes) { return reinterpret_cast<uintptr_t>(address) % uintptr_t(bytes) == 0; }

}  // namespace

cudaError_t run_conversion(const Conversion& c, const Context& context) {
  if (c.numel == 0) return cudaSuccess;
  const int64_t per_block = int64_t(kConvertThreads / 32) * kPerWarp;
  const int64_t blocks = (c.numel + per_block - 1) / per_block;
  const unsigned grid = unsigned(blocks < kMostBlocks ? blocks : kMostBlocks);
  const bool values_aligned = is_aligned(c.values, kBlockGroup * item_size(c.dtype));
  const bool codes_aligned = is_aligned(c.codes, kBlockGroup * formats::code_bits(c.format.map) / 8);
  const auto run = [&](bool find_maxima) {
    return simt::launch(convert_kernel, grid, kConvertThreads, 0, context.stream, c, make_codec(c.format), values_aligned,
                        codes_aligned, find_maxima);
  };
  if (c.quantise && has_matrix_scales(c.format, c.rows, c.cols)) {
    const size_t bytes = size_t(matrix_scales(c.format, c.rows, c.cols).count()) * sizeof(float);
    cudaError_t error = cudaMemsetAsync(c.scales, 0, bytes, context.stream);
    if (error == cudaSuccess) error = run(true);
    if (error != cudaSuccess) return error;
  }
  return run(false);
}

}  // namespace momentum::cuda
