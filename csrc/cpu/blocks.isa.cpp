#include "cpu/blocks.h"

#include "cpu/lanes.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

using formats::BlockScale;
using formats::CodeMap;

// Maps of 4 bits: values and thresholds in one register each; the nearest code by binary search.
template <CodeMap kMap>
struct FourBits {
  alignas(64) float values[16] = {};
  // What a number is compared with at each step of the search, by the codes that are still possible.
  float middle = 0;
  alignas(64) float eighths[16] = {};
  alignas(64) float quarters[16] = {};
  alignas(64) float halves[16] = {};

  constexpr FourBits() {
    float above[16] = {};  // [i]: between codes i and i + 1
    for (int i = 0; i < 16; ++i) values[i] = formats::decode(kMap, uint32_t(i));
    for (int i = 0; i < 15; ++i) above[i] = 0.5f * (values[i] + values[i + 1]);
    middle = above[7];
    for (int i = 0; i < 16; i += 8) eighths[i] = above[i + 3];
    for (int i = 0; i < 16; i += 4) quarters[i] = above[i + 1];
    for (int i = 0; i < 16; i += 2) halves[i] = above[i];
  }
};

// The constants of a dynamic map of 8 bits, by decade. Decade `first - 1` is zero.
template <CodeMap kMap>
struct Decades {
  static constexpr int kTop = formats::dynamic::top(kMap);
  static constexpr int kFirst = formats::is_unsigned(kMap) ? 1 : 0;
  static constexpr int kCount = kTop + 2 - kFirst;  // thresholds

  float thresholds[kCount] = {};
  // By the number of thresholds a magnitude is above.
  alignas(64) float factor[16] = {};
  alignas(64) float offset[16] = {};
  alignas(64) int32_t low[16] = {};
  alignas(64) int32_t high[16] = {};
  // By the decade, as the exponent of a float shows it: (127 + e) % 16.
  alignas(64) float scale[16] = {};
  alignas(64) float bias[16] = {};
  // By the binade of a magnitude, the last but one ending at 1: the threshold in it, and how many lie below.
  alignas(64) float in_binade[32] = {};
  alignas(64) int32_t below_binade[32] = {};

  constexpr Decades() {
    low[0] = high[0] = kFirst;
    offset[0] = float(kFirst);
    for (int i = 0; i < kCount; ++i) {
      const int e = kFirst + i;
      thresholds[i] = formats::dynamic::threshold(e, kTop, i == 0);
      factor[i + 1] = formats::dynamic::line_factor(e, kTop);
      offset[i + 1] = formats::dynamic::line_offset(e);
      low[i + 1] = 1 << e;
      high[i + 1] = e > kTop ? 1 << e : (2 << e) - 1;
    }
    for (int e = 0; e <= kTop; ++e) {
      scale[(127 + e) % 16] = formats::dynamic::power_of_five(e) * formats::dynamic::unit(kTop);
      bias[(127 + e) % 16] = float(9 - (16 << e));
    }
    scale[(128 + kTop) % 16] = 1.0f;  // the last magnitude alone: its value is exactly 1
    bias[(128 + kTop) % 16] = float(1 - 18 * (2 << kTop));
    float begin = 1.0f;
    for (int i = 31; i >= 0; --i, begin *= 0.5f) {
      in_binade[i] = 4.0f;  // none
      for (int j = 0; j < kCount; ++j) {
        if (thresholds[j] < begin) ++below_binade[i];
        if (thresholds[j] >= begin && thresholds[j] < 2 * begin) in_binade[i] = thresholds[j];
      }
    }
  }
};

// How many thresholds lie below each of the magnitudes.
template <CodeMap kMap>
Ints thresholds_below(Floats a) {
  static constexpr Decades<kMap> kTable;
#if defined(__AVX512F__)
  Ints binade = (as_ints(a) >> 23) - (127 - 31);
  binade = binade < 0 ? Ints{} : binade;
  const Floats threshold = __builtin_shuffle(load<Floats>(kTable.in_binade), load<Floats>(kTable.in_binade + 16), binade);
  const Ints below = __builtin_shuffle(load<Ints>(kTable.below_binade), load<Ints>(kTable.below_binade + 16), binade);
  return below - (a > threshold);
#else
  Ints below = {};
  for (int i = 0; i < kTable.kCount; ++i) below -= a > kTable.thresholds[i];
  return below;
#endif
}

template <CodeMap kMap>
Ints nearest_magnitude(Floats a) {
  static constexpr Decades<kMap> kTable;
  const Ints above = thresholds_below<kMap>(a);
  const Floats line = lookup(kTable.factor, above) * a + lookup(kTable.offset, above);
  Ints m = __builtin_convertvector(line, Ints);
  const Ints low = lookup(kTable.low, above), high = lookup(kTable.high, above);
  m = m < low ? low : m;
  return m > high ? high : m;
}

// From codes to numbers, for one block whose scale is 0, or not NaN and at least 2^-96.
template <CodeMap kMap>
class Decoder {
 public:
  explicit Decoder(float scale) : scale_(scale) {
    if constexpr (kIsTable) {
      static constexpr FourBits<kMap> kTable;
      for (int i = 0; i < 16; ++i) table_[i] = kTable.values[i] * scale;
    } else if constexpr (formats::is_dynamic(kMap)) {
      static constexpr Decades<kMap> kTable;
      for (int i = 0; i < 16; ++i) table_[i] = kTable.scale[i] * scale;
    }
  }

  Floats operator()(Ints code) const {
    if constexpr (kIsTable) {
      return lookup(table_, code);
    } else if constexpr (kMap == CodeMap::kLinear8) {
      return __builtin_convertvector((code << 24) >> 24, Floats) * (1.0f / 127.0f) * scale_;
    } else if constexpr (kMap == CodeMap::kFloat8) {
      const Ints m = code & 0x7f;
      const Floats finite = as_floats(m << 20) * 0x1p120f;
      const Floats value = m == 0x7f ? as_floats(Ints{} + 0x7fc00000) : finite;
      return as_floats(as_ints(value) | ((code & 0x80) << 24)) * (1.0f / formats::float8::kLargest) * scale_;
    } else if constexpr (formats::is_unsigned(kMap)) {
      return as_floats(as_ints(value(code + 1)) & (code != 0));
    } else {
      const Ints steps = code - formats::dynamic::zero(kMap);
      const Ints m = steps < 0 ? -steps : steps;
      const Ints bits = as_ints(value(m)) & (m != 0);
      return as_floats(bits | (steps & int32_t(0x80000000)));
    }
  }

 private:
  static constexpr bool kIsTable = formats::code_bits(kMap) == 4;

  // m >= 1, or any number where the result is not used.
  Floats value(Ints m) const {
    static constexpr Decades<kMap> kTable;
    const Floats number = __builtin_convertvector(m, Floats);
    const Ints decade = as_ints(number) >> 23;
    return (18.0f * number + lookup(kTable.bias, decade)) * lookup(table_, decade);
  }

  alignas(64) float table_[16];
  float scale_;
};

// What numbers in [-1, 1] are multiplied by before `nearest`, so that the scale and it are one factor.
template <CodeMap kMap>
constexpr float kUnits = kMap == CodeMap::kLinear4   ? 16.0f
                         : kMap == CodeMap::kLinear8 ? 127.0f
                         : kMap == CodeMap::kFloat8  ? formats::float8::kLargest
                                                     : 1.0f;

// From such numbers to codes. They may be up to 1.5 times larger where a block's scale was rounded to a subnormal float16.
template <CodeMap kMap>
Ints nearest(Floats x) {
  if constexpr (kMap == CodeMap::kLinear4) {
    const Floats code = x - 1.0f;
    return round_to_int(clamp(code, 0.0f, 15.0f));
  } else if constexpr (formats::code_bits(kMap) == 4) {
    static constexpr FourBits<kMap> kTable;
    Ints code = set_where_above(Ints{}, x, Floats{} + kTable.middle, 8);
    code = set_where_above(code, x, lookup(kTable.eighths, code), 4);
    code = set_where_above(code, x, lookup(kTable.quarters, code), 2);
    return set_where_above(code, x, lookup(kTable.halves, code), 1);
  } else if constexpr (kMap == CodeMap::kLinear8) {
    return round_to_int(clamp(x, -127.0f, 127.0f)) & 0xff;
  } else if constexpr (kMap == CodeMap::kFloat8) {
    const Ints u = as_ints(x);
    const Ints m = u & 0x7fffffff;
    const Ints subnormal = as_ints(as_floats(m) + 16384.0f) - 0x46800000;
    const Ints normal = (m - 0x3c000000 + 0x7ffff + ((m >> 20) & 1)) >> 20;
    Ints code = m < 0x3c800000 ? subnormal : normal;
    code = m >= 0x43e00000 ? Ints{} + 0x7e : code;
    return code | ((u >> 24) & 0x80);
  } else if constexpr (formats::is_unsigned(kMap)) {
    return nearest_magnitude<kMap>(x) - 1;
  } else {
    constexpr int kZero = formats::dynamic::zero(kMap);
    const Ints m = nearest_magnitude<kMap>(magnitude(x));
    const Ints negative = as_ints(x) >> 31;
    const Ints code = kZero + ((m ^ negative) - negative);
    return code < 0 ? Ints{} : code;  // -1 has no code of its own
  }
}

template <CodeMap kMap>
Ints load_codes(const uint8_t* codes, int64_t i) {
  return formats::code_bits(kMap) == 8 ? load_bytes(codes + i) : load_nibbles(codes + i / 2);
}

template <CodeMap kMap>
void store_codes(uint8_t* codes, int64_t i, Ints code) {
  formats::code_bits(kMap) == 8 ? store_bytes(codes + i, code) : store_nibbles(codes + i / 2, code);
}

// Single elements: the last few of a state.
uint32_t load_code(CodeMap map, const uint8_t* codes, int64_t i) {
  if (formats::code_bits(map) == 8) return codes[i];
  return (codes[i / 2] >> (i % 2 * 4)) & 15u;
}

void store_code(CodeMap map, uint8_t* codes, int64_t i, uint32_t code) {
  if (formats::code_bits(map) == 8) {
    codes[i] = uint8_t(code);
  } else {
    codes[i / 2] = uint8_t(i % 2 == 0 ? code : codes[i / 2] | (code << 4));
  }
}

template <CodeMap kMap>
void decode_run(const uint8_t* codes, float scale, int64_t begin, int n, float* __restrict out) {
  int i = 0;
  // Below, the decoder's products of the scale and a decade's unit would not be normal numbers.
  if (scale != scale || (scale > 0.0f && scale < 0x1p-96f)) {
    for (; i < n; ++i) out[i] = formats::decode(kMap, load_code(kMap, codes, begin + i)) * scale;
    return;
  }
  const Decoder<kMap> decoder(scale);
  for (; i + kVector <= n; i += kVector) store(out + i, decoder(load_codes<kMap>(codes, begin + i)));
  if (i == n) return;
  int32_t rest[kVector] = {};
  for (int j = 0; i + j < n; ++j) rest[j] = int32_t(load_code(kMap, codes, begin + i + j));
  const Floats values = decoder(load<Ints>(rest));
  std::memcpy(out + i, &values, size_t(n - i) * sizeof(float));
}

uint32_t absmax_bits(const float* values, int n) {
  Ints largest[2] = {};
  int i = 0;
  for (; i + 2 * kVector <= n; i += 2 * kVector) {
    for (int j = 0; j < 2; ++j) {
      const Ints bits = load<Ints>(values + i + j * kVector) & 0x7fffffff;
      largest[j] = bits > largest[j] ? bits : largest[j];
    }
  }
  int32_t result = largest_of(largest[0] > largest[1] ? largest[0] : largest[1]);
  for (; i < n; ++i) {
    const int32_t bits = bit_cast<int32_t>(values[i]) & 0x7fffffff;
    result = bits > result ? bits : result;
  }
  return uint32_t(result);
}

template <CodeMap kMap>
void encode_run(uint8_t* codes, const BlockScale& scale, int64_t begin, int n, const float* values, const uint32_t* random) {
  const float factor = scale.inverse * kUnits<kMap>;  // read before the codes are written, which might be anything
  int i = 0;
  if (random == nullptr && scale.scale == scale.scale && scale.before == 1.0f) {
#pragma GCC unroll 2
    for (; i + kVector <= n; i += kVector) {
      store_codes<kMap>(codes, begin + i, nearest<kMap>(load<Floats>(values + i) * factor));
    }
  }
  for (; i < n; ++i) {
    const float x = formats::normalise(scale, values[i]);
    const uint32_t code = random == nullptr ? formats::nearest_code(kMap, x) : formats::stochastic_code(kMap, x, random[i]);
    store_code(kMap, codes, begin + i, code);
  }
}

// Calls use.template operator()<map>().
template <class Use>
void with_map(CodeMap map, Use&& use) {
  switch (map) {
    case CodeMap::kDynamic4:
      return use.template operator()<CodeMap::kDynamic4>();
    case CodeMap::kDynamic4MinusOne:
      return use.template operator()<CodeMap::kDynamic4MinusOne>();
    case CodeMap::kUnsignedDynamic4:
      return use.template operator()<CodeMap::kUnsignedDynamic4>();
    case CodeMap::kLinear4:
      return use.template operator()<CodeMap::kLinear4>();
    case CodeMap::kDynamic8:
      return use.template operator()<CodeMap::kDynamic8>();
    case CodeMap::kUnsignedDynamic8:
      return use.template operator()<CodeMap::kUnsignedDynamic8>();
    case CodeMap::kLinear8:
      return use.template operator()<CodeMap::kLinear8>();
    case CodeMap::kFloat8:
      return use.template operator()<CodeMap::kFloat8>();
    case CodeMap::kNone:
      return;
  }
}

// Calls use(row, col, length, done) for the runs of elements [begin, begin + n) that share a row and a tile; `done` elements
// came before.
template <class Use>
void for_runs(const MatrixScales& shape, int64_t begin, int n, Use&& use) {
  int64_t row = begin / shape.cols, col = begin - row * shape.cols;
  for (int done = 0; done < n;) {
    int64_t end = shape.across > 1 ? (col / shape.side + 1) * shape.side : shape.cols;
    end = end < shape.cols ? end : shape.cols;
    const int length = int(end - col < n - done ? end - col : n - done);
    use(row, col, length, done);
    done += length;
    col += length;
    if (col == shape.cols) {
      col = 0;
      ++row;
    }
  }
}

// The scale of each element.
void spread_scales(const MatrixScales& shape, const float* scales, int64_t begin, int n, float* __restrict out) {
  for_runs(shape, begin, n, [&](int64_t row, int64_t col, int length, int done) {
    const float of_row = scales[shape.row_scale(row, col)];
    const float* __restrict of_columns = scales + shape.column_scale(row, col);
    for (int i = 0; i < length; ++i) out[done + i] = formats::smaller_scale(of_row, of_columns[i]);
  });
}

constexpr int kTileBlocks = 4;
constexpr int kMatrixTile = 1024;  // at least the largest tile and two blocks

}  // namespace

void decode_matrix(const StateFormat& format, const MatrixScales& shape, const void* codes, const float* scales, int64_t begin,
                   int n, float* __restrict out) {
  alignas(64) float each[kMatrixTile];
  spread_scales(shape, scales, begin, n, each);
  with_map(format.map, [&]<CodeMap kMap>() { decode_run<kMap>(static_cast<const uint8_t*>(codes), 1.0f, begin, n, out); });
  for (int i = 0; i < n; ++i) out[i] *= each[i];
}

void encode_matrix(const StateFormat& format, const MatrixScales& shape, void* codes, const float* scales, int64_t begin, int n,
                   const float* __restrict values, const uint32_t* random) {
  alignas(64) float units[kMatrixTile];
  spread_scales(shape, scales, begin, n, units);
  for (int i = 0; i < n; ++i) units[i] = formats::divide_by_scale(values[i], units[i]);
  with_map(format.map, [&]<CodeMap kMap>() {
    encode_run<kMap>(static_cast<uint8_t*>(codes), {1.0f, 1.0f, 1.0f}, begin, n, units, random);
  });
}

void raise_scales(const MatrixScales& shape, int64_t begin, int n, const float* values, uint32_t* scales) {
  for_runs(shape, begin, n, [&](int64_t row, int64_t col, int length, int done) {
    uint32_t* __restrict of_columns = scales + shape.column_scale(row, col);
    uint32_t largest = 0;
    for (int i = 0; i < length; ++i) {
      const uint32_t bits = bit_cast<uint32_t>(values[done + i]) & 0x7fffffffu;
      of_columns[i] = bits > of_columns[i] ? bits : of_columns[i];
      largest = bits > largest ? bits : largest;
    }
    uint32_t& of_row = scales[shape.row_scale(row, col)];
    of_row = largest > of_row ? largest : of_row;
  });
}

void decode_blocks(const StateFormat& format, const void* codes, const void* scales, int64_t begin, int n, float* out) {
  with_map(format.map, [&]<CodeMap kMap>() {
    for (int i = 0; i < n; i += format.block) {
      const float scale = formats::load_scale(scales, format.scale_dtype, (begin + i) / format.block);
      decode_run<kMap>(static_cast<const uint8_t*>(codes), scale, begin + i, n - i < format.block ? n - i : format.block,
                       out + i);
    }
  });
}

void encode_blocks(const StateFormat& format, void* codes, void* scales, int64_t begin, int n, const float* values,
                   const uint32_t* random) {
  // The scales of all blocks first: each is a long chain of dependent instructions, and the chains of several overlap.
  BlockScale scales_of[kTileBlocks];
  const auto length_of = [&](int i) { return n - i < format.block ? n - i : format.block; };
  for (int i = 0, b = 0; i < n; i += format.block, ++b) {
    scales_of[b] = formats::make_scale(absmax_bits(values + i, length_of(i)), format.scale_dtype);
    formats::store_scale(scales, format.scale_dtype, (begin + i) / format.block, scales_of[b].scale);
  }
  with_map(format.map, [&]<CodeMap kMap>() {
    for (int i = 0, b = 0; i < n; i += format.block, ++b) {
      encode_run<kMap>(static_cast<uint8_t*>(codes), scales_of[b], begin + i, length_of(i), values + i,
                       random == nullptr ? nullptr : random + i);
    }
  });
}

}  // namespace momentum::cpu::MOMENTUM_ISA
