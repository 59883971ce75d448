#include "cpu/convert.h"

#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {

void convert(const Conversion& c, int64_t begin, int64_t end) {
  alignas(64) float values[kTile];
  alignas(64) uint32_t random[kTile];
  TensorArgs whole;  // of which fill_random wants to know the layout alone
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    if (c.quantise) {
      decode<float>(c.dtype, c.values, i, n, values);
      if (c.format.stochastic) fill_random(whole, c.seed, c.step, i, n, random);
      encode_blocks(c.format, c.codes, c.scales, i, n, values, c.format.stochastic ? random : nullptr);
    } else {
      decode_blocks(c.format, c.codes, c.scales, i, n, values);
      encode<float>(c.dtype, c.values, i, n, values);
    }
  }
}

}  // namespace momentum::cpu::MOMENTUM_ISA
