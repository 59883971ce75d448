// Block-scaled storage of a state: codes, and one scale for every block of consecutive elements; or, for matrices, one for
// every row and column of a tile, of which an element takes the smaller. The tile is the whole matrix (rank-one scales, Li et
// al. 2023) or a square (grid scales).
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/dtype.h"
#include "core/formats/bfloat16.h"
#include "core/formats/codes.h"
#include "core/formats/float16.h"

namespace momentum {

enum class Scaling : uint8_t { kBlock = 0, kRankOne = 1, kGrid = 2 };

// How one state of a call is quantised; plain data. `map` kNone: it is not.
struct StateFormat {
  formats::CodeMap map = formats::CodeMap::kNone;
  DType scale_dtype = DType::kFloat32;
  Scaling scaling = Scaling::kBlock;
  bool stochastic = false;
  int block = 0;  // 64, 128 or 256 elements; with grid scales the side of a tile
};

inline constexpr int kSmallestBlock = 64, kLargestBlock = 256;

constexpr bool is_block_size(int64_t block) { return block == 64 || block == 128 || block == 256; }

MOMENTUM_HD constexpr int64_t block_count(const StateFormat& format, int64_t numel) {
  return (numel + format.block - 1) / format.block;
}

// The scales of a matrix: of each row within each tile, then of each column.
struct MatrixScales {
  int64_t rows, cols;
  int64_t side;          // of a tile
  int64_t across, down;  // tiles

  MOMENTUM_HD int64_t row_scale(int64_t row, int64_t col) const { return row * across + (across > 1 ? col / side : 0); }
  MOMENTUM_HD int64_t column_scale(int64_t row, int64_t col) const {
    return rows * across + (down > 1 ? row / side * cols : 0) + col;
  }
  MOMENTUM_HD int64_t count() const { return rows * across + down * cols; }
};

// A row or a column alone is scaled in blocks.
MOMENTUM_HD constexpr bool has_matrix_scales(const StateFormat& format, int64_t rows, int64_t cols) {
  return format.scaling != Scaling::kBlock && rows > 1 && cols > 1;
}

MOMENTUM_HD MatrixScales matrix_scales(const StateFormat& format, int64_t rows, int64_t cols) {
  if (format.scaling == Scaling::kRankOne) return {rows, cols, rows > cols ? rows : cols, 1, 1};
  const int64_t side = format.block;
  return {rows, cols, side, (cols + side - 1) / side, (rows + side - 1) / side};
}

MOMENTUM_HD int64_t scale_count(const StateFormat& format, int64_t numel, int64_t rows, int64_t cols) {
  return has_matrix_scales(format, rows, cols) ? matrix_scales(format, rows, cols).count() : block_count(format, numel);
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

  // Whether the second step is enough.
  MOMENTUM_HD constexpr bool is_regular() const { return scale == scale && before == 1.0f; }
};

// From here on the second step is enough.
inline constexpr float kLeastRegularScale = 0x1p-64f;

MOMENTUM_HD float round_scale(float scale, DType dtype) {
  if (dtype == DType::kBFloat16) return BFloat16::load<float>(BFloat16::store(scale));
  if (dtype == DType::kFloat16) return Float16::load<float>(Float16::store(scale));
  return scale;
}

MOMENTUM_HD BlockScale make_scale(uint32_t absmax_bits, DType dtype) {
  const float rounded = round_scale(bit_cast<float>(absmax_bits), dtype);
  const bool finite = bit_cast<uint32_t>(rounded) < 0x7f800000u;
  const float scale = finite ? rounded : bit_cast<float>(0x7fc00000u);
  const float before = scale < kLeastRegularScale ? 0x1p64f : 1.0f;
  const float inverse = scale > 0.0f ? 1.0f / (scale * before) : 0.0f;  // of nothing but zeros: all become zero
  return {scale, before, inverse};
}

// In [-1, 1] up to rounding; 0 in a block whose scale is NaN.
MOMENTUM_HD float normalise(const BlockScale& s, float x) {
  const float unit = x * s.before * s.inverse;
  return s.scale == s.scale ? unit : 0.0f;
}

// The scale of an element between those of its row and its column; NaN where one of them is not finite.
MOMENTUM_HD float smaller_scale(float row, float column) {
  const float scale = row < column ? row : column;
  const float larger = row < column ? column : row;
  const bool finite = scale == scale && larger < bit_cast<float>(0x7f800000u);
  return finite ? scale : bit_cast<float>(0x7fc00000u);
}

// In [-1, 1]: an element is at most its scale. 0 where the scale is 0, or NaN.
MOMENTUM_HD float divide_by_scale(float x, float scale) { return scale > 0.0f ? x / scale : 0.0f; }

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
