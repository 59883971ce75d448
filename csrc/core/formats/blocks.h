// Block-scaled storage of a state: codes, and one scale for every block of consecutive elements.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/dtype.h"
#include "core/formats/bfloat16.h"
#include "core/formats/codes.h"
#include "core/formats/float16.h"

namespace momentum {

// How one state of a call is quantised; plain data. `map` kNone: it is not.
struct StateFormat {
  formats::CodeMap map = formats::CodeMap::kNone;
  DType scale_dtype = DType::kFloat32;
  bool stochastic = false;
  int block = 0;  // 64, 128 or 256 elements
};

inline constexpr int kSmallestBlock = 64, kLargestBlock = 256;

constexpr bool is_block_size(int64_t block) { return block == 64 || block == 128 || block == 256; }

MOMENTUM_HD constexpr int64_t block_count(const StateFormat& format, int64_t numel) {
  return (numel + format.block - 1) / format.block;
}

// Each state draws from its own random stream.
MOMENTUM_HD constexpr uint64_t state_seed(uint64_t seed, int state) {
  return seed ^ (uint64_t(state + 1) * 0x9E3779B97F4A7C15u);
}

namespace formats {

// What a block's largest magnitude becomes. `absmax` comes as bits, so that a maximum of integers finds NaN too: a block with a
// NaN or infinity has the scale NaN and decodes to NaN, which shows.
struct BlockScale {
  float scale;    // as stored
  float before;   // numbers are multiplied by this and then by
  float inverse;  // this, which brings them to [-1, 1]; in two steps, so that neither overflows
};

MOMENTUM_HD float round_scale(float scale, DType dtype) {
  if (dtype == DType::kBFloat16) return BFloat16::load<float>(BFloat16::store(scale));
  if (dtype == DType::kFloat16) return Float16::load<float>(Float16::store(scale));
  return scale;
}

MOMENTUM_HD BlockScale make_scale(uint32_t absmax_bits, DType dtype) {
  const float rounded = round_scale(bit_cast<float>(absmax_bits), dtype);
  const bool finite = bit_cast<uint32_t>(rounded) < 0x7f800000u;
  const float scale = finite ? rounded : bit_cast<float>(0x7fc00000u);
  const float before = scale < 0x1p-64f ? 0x1p64f : 1.0f;
  const float inverse = scale > 0.0f ? 1.0f / (scale * before) : 0.0f;  // of nothing but zeros: all become zero
  return {scale, before, inverse};
}

// In [-1, 1] up to rounding; 0 in a block whose scale is NaN.
MOMENTUM_HD float normalise(const BlockScale& s, float x) {
  const float unit = x * s.before * s.inverse;
  return s.scale == s.scale ? unit : 0.0f;
}

MOMENTUM_HD float load_scale(const void* scales, DType dtype, int64_t i) {
  if (dtype == DType::kBFloat16) return BFloat16::load<float>(static_cast<const uint16_t*>(scales)[i]);
  if (dtype == DType::kFloat16) return Float16::load<float>(static_cast<const uint16_t*>(scales)[i]);
  return static_cast<const float*>(scales)[i];
}

MOMENTUM_HD void store_scale(void* scales, DType dtype, int64_t i, float scale) {
  if (dtype == DType::kBFloat16) {
    static_cast<uint16_t*>(scales)[i] = BFloat16::store(scale);
  } else if (dtype == DType::kFloat16) {
    static_cast<uint16_t*>(scales)[i] = Float16::store(scale);
  } else {
    static_cast<float*>(scales)[i] = scale;
  }
}

}  // namespace formats
}  // namespace momentum
