#include "cpu/blocks.h"

#include "cpu/codecs.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

using formats::BlockScale;

// Single elements: the last few of a state.
uint32_t load_code(CodeMap map, const uint8_t* codes, int64_t i) {
  if (formats::code_bits(map) == 8) return codes[i];
  return (codes[i >> 1] >> ((i & 1) * 4)) & 15u;
}

void store_code(CodeMap map, uint8_t* codes, int64_t i, uint32_t code) {
  if (formats::code_bits(map) == 8) {
    codes[i] = uint8_t(code);
  } else {
    codes[i >> 1] = uint8_t((i & 1) == 0 ? code : codes[i >> 1] | (code << 4));
  }
}

template <CodeMap kMap>
using CodecOf = Codec<std::remove_cvref_t<decltype(kConstants<kMap>)>>;

template <CodeMap kMap>
void decode_run(const uint8_t* codes, float scale, int64_t begin, int n, float* __restrict out) {
  int i = 0;
  const typename CodecOf<kMap>::Decoder decoder(kConstants<kMap>, scale);
  for (; i + kVector <= n; i += kVector) store(out + i, decoder.of(load_codes<formats::code_bits(kMap)>(codes, begin + i)));
  if (i == n) return;
  int32_t rest[kVector] = {};
  for (int j = 0; i + j < n; ++j) rest[j] = int32_t(load_code(kMap, codes, begin + i + j));
  const Floats values = decoder.of(load<Ints>(rest));
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

// Numbers that are not simply multiplied by the inverse of their scale and rounded to nearest.
template <CodeMap kMap>
void encode_singly(uint8_t* codes, const BlockScale& scale, int64_t begin, int n, const float* values, const uint32_t* random) {
  for (int i = 0; i < n; ++i) {
    const float x = formats::normalise(scale, values[i]);
    const uint32_t code = random == nullptr ? formats::nearest_code(kMap, x) : formats::stochastic_code(kMap, x, random[i]);
    store_code(kMap, codes, begin + i, code);
  }
}

template <CodeMap kMap, Order kOrder = Order::kRising>
void encode_run(uint8_t* codes, const BlockScale& scale, int64_t begin, int n, const float* values, const uint32_t* random) {
  if (random != nullptr || !scale.is_regular()) {
    if constexpr (kOrder == Order::kRising) return encode_singly<kMap>(codes, scale, begin, n, values, random);
    float ordered[kLargestBlock];
    std::memcpy(ordered, values, size_t(n) * sizeof(float));
    put_in_order(n, ordered);
    return encode_singly<kMap>(codes, scale, begin, n, ordered, random);
  }
  constexpr bool kBytes = formats::code_bits(kMap) == 8;
  const float factor = scale.inverse * kConstants<kMap>.units;  // read before the codes are written, which might be anything
  uint8_t* to = codes + (kBytes ? begin : begin >> 1);
  constexpr int kBytesOfGroup = kBytes ? kGroup : kGroup / 2;
  int i = 0;
  if constexpr (kBytes && kGroupsAtOnce > 1) {
    for (; i + kGroupsAtOnce * kGroup <= n; i += kGroupsAtOnce * kGroup, to += kGroupsAtOnce * kBytesOfGroup) {
      encode_groups<kOrder, kGroupsAtOnce>(kConstants<kMap>, to, values + i, factor);
    }
  }
  for (; i + kGroup <= n; i += kGroup, to += kBytesOfGroup) {
    encode_groups<kOrder, 1>(kConstants<kMap>, to, values + i, factor);
  }
  if (i == n) return;
  float rest[kGroup] = {};
  uint8_t bytes[kGroup];
  const int count = n - i;
  std::memcpy(rest, values + i, size_t(count) * sizeof(float));
  encode_groups<kOrder, 1>(kConstants<kMap>, bytes, rest, factor);
  if (!kBytes && (count & 1) != 0) bytes[count >> 1] &= 15;  // the last byte has one code
  std::memcpy(to, bytes, size_t(kBytes ? count : (count + 1) >> 1));
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

void find_block_scales(const StateFormat& format, int n, const float* values, BlockScale* found) {
  for (int i = 0; i < n; i += format.block) {
    *found++ = formats::make_scale(absmax_bits(values + i, n - i < format.block ? n - i : format.block), format.scale_dtype);
  }
}

void find_block_scales(const StateFormat& format, int n, int run, float unit, const Ints* most, BlockScale* found) {
  for (int i = 0; i < n; i += format.block) {
    Ints largest = *most++;
    for (int j = run; j < format.block && i + j < n; j += run, ++most) largest = *most > largest ? *most : largest;
    const float absmax = math::abs(unit * bit_cast<float>(largest_of(largest)));
    *found++ = formats::make_scale(bit_cast<uint32_t>(absmax), format.scale_dtype);
  }
}

void encode_blocks(const StateFormat& format, void* codes, void* scales, int64_t begin, int n, const float* values,
                   [[maybe_unused]] Order order, const BlockScale* found, const uint32_t* random) {
  with_map(format.map, [&]<CodeMap kMap>() {
    auto* run = &encode_run<kMap>;
#if defined(__AVX512F__)
    if (order == Order::kAlternating) run = &encode_run<kMap, Order::kAlternating>;
#endif
    for (int i = 0; i < n; i += format.block, ++found) {
      formats::store_scale(scales, format.scale_dtype, (begin + i) / format.block, found->scale);
      run(static_cast<uint8_t*>(codes), *found, begin + i, n - i < format.block ? n - i : format.block, values + i,
          random == nullptr ? nullptr : random + i);
    }
  });
}

}  // namespace momentum::cpu::MOMENTUM_ISA
