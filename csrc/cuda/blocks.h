// Quantised states on the GPU: codes of groups of four elements, and the scales of blocks that a warp holds whole.
//
// The constants of a code map travel in the kernel's parameters, so that one piece of code serves all dynamic maps: compiled
// once for each map the conversions would be most of the kernel.
#pragma once

#include <cstdint>

#include "core/formats/blocks.h"
#include "cuda/ptx.h"
#include "cuda/simt.h"

namespace momentum::cuda {

// Elements a thread converts at a time, and groups of them a thread holds: a warp holds 256 consecutive elements.
inline constexpr int kBlockGroup = 4;
inline constexpr int kBlockGroups = 2;
inline constexpr int kThresholds = 9;

// A state's format with the constants of its map; plain data.
struct BlockCodec {
  StateFormat format;
  int block_shift;  // log2 of the block
  bool dynamic;
  // Dynamic maps: see formats::dynamic. Thresholds beyond the last are never exceeded.
  int first, top, zero;
  int skipped;  // negative magnitudes that have no code
  float unit, line, second_half;
  float thresholds[kThresholds];
};

inline BlockCodec make_codec(const StateFormat& format) {
  namespace dynamic = formats::dynamic;
  BlockCodec c{};
  c.format = format;
  while ((1 << c.block_shift) < format.block) ++c.block_shift;
  c.dynamic = formats::is_dynamic(format.map);
  if (!c.dynamic) return c;
  c.top = dynamic::top(format.map);
  c.first = formats::is_unsigned(format.map) ? 1 : 0;
  c.zero = formats::is_unsigned(format.map) ? -1 : dynamic::zero(format.map);
  c.skipped = format.map == formats::CodeMap::kDynamic4MinusOne ? 1 : 0;
  c.unit = dynamic::unit(c.top);
  c.line = dynamic::line_factor(0, c.top);
  c.second_half = 0.5f * dynamic::value(2, c.top);
  for (int i = 0; i < kThresholds; ++i) {
    const int e = c.first + i;
    c.thresholds[i] = e <= c.top + 1 ? dynamic::threshold(e, c.top, i == 0) : 4.0f;
  }
  return c;
}

__device__ __forceinline__ float decode_magnitude(const BlockCodec& c, int magnitude) {
  const int e = 31 - __clz(magnitude);
  const float five = ((e & 1) != 0 ? 5.0f : 1.0f) * ((e & 2) != 0 ? 25.0f : 1.0f) * ((e & 4) != 0 ? 625.0f : 1.0f);
  return e > c.top ? 1.0f : float(18 * magnitude + 9 - (16 << e)) * (five * c.unit);
}

__device__ __forceinline__ float decode_code(const BlockCodec& c, uint32_t code) {
  if (!c.dynamic) return formats::plain::decode(c.format.map, code);
  const int steps = int(code) - c.zero;  // of unsigned maps the magnitude itself, 1 for zero
  const int magnitude = (steps < 0 ? -steps : steps) + (steps < 0 ? c.skipped : 0);
  const float v = magnitude == c.first ? 0.0f : decode_magnitude(c, magnitude);
  return steps < 0 ? -v : v;
}

__device__ __forceinline__ uint32_t nearest_code(const BlockCodec& c, float x) {
  if (!c.dynamic) return formats::plain::nearest(c.format.map, x);
  const float a = fabsf(x);
  int above = 0;
#pragma unroll
  for (int i = 0; i < kThresholds; ++i) above += a > c.thresholds[i] ? 1 : 0;
  const int e = c.first + above - 1;
  const float fifth = ((e & 1) != 0 ? 0.2f : 1.0f) * ((e & 2) != 0 ? 0.04f : 1.0f) * ((e & 4) != 0 ? 0.0016f : 1.0f);
  const int low = 1 << max(e, 0);
  int magnitude = int(fifth * c.line * a + float(low) * (16.0f / 18.0f));
  magnitude = max(low, min(magnitude, 2 * low - 1));
  magnitude = e > c.top ? low : above == 0 ? c.first : magnitude;
  if (!(x < 0.0f)) return uint32_t(c.zero + magnitude);
  if (c.skipped != 0) magnitude = a <= c.second_half ? 1 : max(magnitude, 2);
  return uint32_t(max(0, c.zero + c.skipped - magnitude));
}

// Codes of elements i .. i + 4, the first in the lowest bits; those beyond the end read as 0. i is a multiple of 4.
__device__ __forceinline__ uint32_t load_codes(const BlockCodec& c, const void* base, bool aligned, int64_t i, int64_t numel) {
  ptx::assume_global(base);
  const auto* bytes = static_cast<const uint8_t*>(base);
  const bool whole = aligned && i + kBlockGroup <= numel;
  if (formats::code_bits(c.format.map) == 8) {
    if (whole) return *reinterpret_cast<const uint32_t*>(bytes + i);
    uint32_t raw = 0;
#pragma unroll
    for (int v = 0; v < kBlockGroup; ++v) raw |= i + v < numel ? uint32_t(bytes[i + v]) << (8 * v) : 0u;
    return raw;
  }
  if (whole) return *reinterpret_cast<const uint16_t*>(bytes + i / 2);
  uint32_t raw = i < numel ? bytes[i / 2] : 0u;
  if (i + 2 < numel) raw |= uint32_t(bytes[i / 2 + 1]) << 8;
  return raw;
}

__device__ __forceinline__ void store_codes(const BlockCodec& c, void* base, bool aligned, int64_t i, int64_t numel,
                                            uint32_t raw) {
  ptx::assume_global(base);
  auto* bytes = static_cast<uint8_t*>(base);
  const bool whole = aligned && i + kBlockGroup <= numel;
  if (formats::code_bits(c.format.map) == 8) {
    if (whole) {
      *reinterpret_cast<uint32_t*>(bytes + i) = raw;
      return;
    }
#pragma unroll
    for (int v = 0; v < kBlockGroup; ++v) {
      if (i + v < numel) bytes[i + v] = uint8_t(raw >> (8 * v));
    }
    return;
  }
  if (whole) {
    *reinterpret_cast<uint16_t*>(bytes + i / 2) = uint16_t(raw);
    return;
  }
  if (i < numel) bytes[i / 2] = uint8_t(raw);
  if (i + 2 < numel) bytes[i / 2 + 1] = uint8_t(raw >> 8);
}

__device__ __forceinline__ void decode_codes(const BlockCodec& c, uint32_t raw, float scale, float* values) {
  const int bits = formats::code_bits(c.format.map);
#pragma unroll
  for (int v = 0; v < kBlockGroup; ++v) {
    values[v] = decode_code(c, (raw >> (bits * v)) & ((1u << bits) - 1u)) * scale;
  }
}

// The codes of four numbers in [-1, 1]; those from `count` on, beyond the end of the tensor, become 0.
__device__ __forceinline__ uint32_t encode_codes(const BlockCodec& c, const float* units, const uint32_t* random, int count) {
  const int bits = formats::code_bits(c.format.map);
  uint32_t raw = 0;
#pragma unroll
  for (int v = 0; v < kBlockGroup; ++v) {
    const float x = units[v];
    uint32_t code = nearest_code(c, x);
    if (c.format.stochastic) {
      const float at = decode_code(c, code);
      const uint32_t next = formats::neighbour(c.format.map, code, x > at);
      code = formats::choose_code(x, code, at, next, decode_code(c, next), random[v]);
    }
    raw |= v < count ? code << (bits * v) : 0u;
  }
  return raw;
}

// The largest magnitude, as bits, over the lanes that share a block of at most 128 elements.
__device__ __forceinline__ uint32_t lanes_absmax(int block_shift, uint32_t bits) {
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, offset);
    if (offset < 16 || block_shift > 6) bits = max(bits, other);
  }
  return bits;
}

// Stores the scales of the blocks that two groups of a thread, which begin at elements `first` and `first` + 128, belong to,
// and brings the groups to [-1, 1] with them. All lanes of the warp take part.
__device__ __forceinline__ void scale_groups(const BlockCodec& codec, void* scales, int64_t first, int64_t numel,
                                             float values[kBlockGroups][kBlockGroup]) {
  uint32_t absmax[kBlockGroups];
#pragma unroll
  for (int j = 0; j < kBlockGroups; ++j) {
    const int64_t i = first + j * 32 * kBlockGroup;
    uint32_t largest = 0;
#pragma unroll
    for (int v = 0; v < kBlockGroup; ++v) {
      const uint32_t bits = bit_cast<uint32_t>(values[j][v]) & 0x7fffffffu;
      largest = i + v < numel ? max(largest, bits) : largest;
    }
    absmax[j] = lanes_absmax(codec.block_shift, largest);
  }
  if (codec.block_shift == 8) absmax[0] = absmax[1] = max(absmax[0], absmax[1]);
  __syncwarp();  // all lanes have read the old scales, which one of them is about to replace
#pragma unroll
  for (int j = 0; j < kBlockGroups; ++j) {
    const int64_t i = first + j * 32 * kBlockGroup;
    const formats::BlockScale scale = formats::make_scale(absmax[j], codec.format.scale_dtype);
    if ((i & (codec.format.block - 1)) == 0 && i < numel) {
      ptx::assume_global(scales);
      formats::store_scale(scales, codec.format.scale_dtype, i >> codec.block_shift, scale.scale);
    }
#pragma unroll
    for (int v = 0; v < kBlockGroup; ++v) values[j][v] = formats::normalise(scale, values[j][v]);
  }
}

// Stores the codes of two groups of numbers in [-1, 1].
__device__ __forceinline__ void store_groups(const BlockCodec& codec, void* codes, bool aligned, int64_t first, int64_t numel,
                                             const float units[kBlockGroups][kBlockGroup],
                                             const uint32_t random[kBlockGroups][kBlockGroup]) {
#pragma unroll
  for (int j = 0; j < kBlockGroups; ++j) {
    const int64_t i = first + j * 32 * kBlockGroup;
    if (i >= numel) continue;
    const int count = numel - i < kBlockGroup ? int(numel - i) : kBlockGroup;
    store_codes(codec, codes, aligned, i, numel, encode_codes(codec, units[j], random[j], count));
  }
}

}  // namespace momentum::cuda
