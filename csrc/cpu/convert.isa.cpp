#include "cpu/convert.h"

#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {

void convert(const Conversion& c, int64_t begin, int64_t end) {
  alignas(64) float values[kTile];
  alignas(64) uint32_t random[kTile];
  TensorArgs whole;  // of which fill_random wants to know the layout alone
  const bool matrix = has_matrix_scales(c.format, c.rows, c.cols);
  const MatrixScales shape = matrix_scales(c.format, c.rows, c.cols);
  auto* scales = static_cast<float*>(c.scales);
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    if (c.quantise) {
      decode<float>(c.dtype, c.values, i, n, values);
      if (c.format.stochastic) fill_random(whole, c.seed, c.step, i, n, random);
      const uint32_t* words = c.format.stochastic ? random : nullptr;
      if (matrix) {
        encode_matrix(c.format, shape, c.codes, scales, i, n, values, words);
      } else {
        formats::BlockScale found[kTileBlocks];
        find_block_scales(c.format, n, values, found);
        encode_blocks(c.format, c.codes, c.scales, i, n, values, Order::kRising, found, words);
      }
    } else {
      matrix ? decode_matrix(c.format, shape, c.codes, scales, i, n, values)
             : decode_blocks(c.format, c.codes, c.scales, i, n, values);
      encode<float>(c.dtype, c.values, i, n, values);
    }
  }
}

void find_scales(const Conversion& c) {
  alignas(64) float values[kTile];
  const MatrixScales shape = matrix_scales(c.format, c.rows, c.cols);
  auto* scales = static_cast<uint32_t*>(c.scales);
  for (int64_t s = 0; s < shape.count(); ++s) scales[s] = 0;
  for (int64_t i = 0; i < c.numel; i += kTile) {
    const int n = int(c.numel - i < kTile ? c.numel - i : kTile);
    decode<float>(c.dtype, c.values, i, n, values);
    raise_scales(shape, i, n, values, scales);
  }
}

}  // namespace momentum::cpu::MOMENTUM_ISA
