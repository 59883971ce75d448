// The parameter of a group of elements with what is kept beside it: compensation, master copy, low bits, weight average.
#pragma once

#include "core/philox.h"
#include "core/prepare.h"
#include "cuda/access.h"
#include "cuda/table.h"

namespace momentum::cuda {

__device__ __forceinline__ uint32_t pick_word(const PhiloxWords& words, uint32_t k) {
  return k == 0 ? words.word[0] : k == 1 ? words.word[1] : k == 2 ? words.word[2] : words.word[3];
}

// Random words for local elements i .. i + V, by their index in the whole tensor.
template <int V>
__device__ __forceinline__ void random_group(const ExtraPart& e, uint64_t seed, uint32_t step, int64_t i, uint32_t* random) {
  PhiloxWords words{};
  uint64_t group = ~uint64_t(0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    int64_t element = i + v;
    if (e.shard_inner != 0) element = element / e.shard_inner * e.shard_stride + element % e.shard_inner;
    element += e.shard_offset;
    if (uint64_t(element) >> 2 != group) {
      group = uint64_t(element) >> 2;
      words = philox_group(seed, step, group);
    }
    random[v] = pick_word(words, uint32_t(element) & 3u);
  }
}

template <int V>
__device__ __forceinline__ Raw load_residual(ResidualKind kind, const void* base, DType dtype, bool aligned, int64_t i,
                                             int64_t numel) {
  if (kind == ResidualKind::kLowBits) return load_byte_group<V>(base, aligned, i, numel);
  return load_group<V>(base, dtype, aligned, i, numel);
}

// Turns the stored parameter p into the one that is stepped.
template <class T, int V>
__device__ __forceinline__ void apply_residual(ResidualKind kind, DType dtype, const Raw& param, const Raw& residual, T* p) {
  if (kind == ResidualKind::kLowBits) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const auto low = int8_t(residual.word[v / 4] >> (v % 4 * 8));
      p[v] = T(formats::BFloat16::join(Element<2>::get(param, v), low));
    }
    return;
  }
  T other[V];
  decode_group<T, V>(dtype, residual, other);
#pragma unroll
  for (int v = 0; v < V; ++v) p[v] = kind == ResidualKind::kMaster ? other[v] : p[v] + other[v];
}

// Stores elements i .. i + V of the stepped parameter p and all that belongs to it. `ema` holds the stored averages.
template <class T, int V, class Entry>
__device__ __forceinline__ void store_param(const CommonArgs& common, const Entry& e, uint32_t step, T ema_weight, int64_t i,
                                            const T* p, const Raw& ema) {
  const auto dtype = [&](int stream) { return stream_dtype(e.dtypes, stream); };
  const auto aligned = [&](int stream) { return stream_aligned(e.aligned, stream); };
  const bool stochastic = common.rounding == Rounding::kStochastic && item_size(dtype(kParamStream)) == 2 &&
                          common.residual != ResidualKind::kKahan;
  const bool low_bits = common.residual == ResidualKind::kLowBits && e.residual != nullptr;
  uint32_t random[V];
  if (stochastic) random_group<V>(e, e.seed, step, i, random);
  Raw stored, low = {{0, 0, 0, 0}};
  if (low_bits) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float x = float(p[v]);
      const auto both = formats::BFloat16::split(
          x, stochastic ? formats::BFloat16::stochastic_addend(random[v]) : formats::BFloat16::nearest_addend(x));
      Element<2>::set(stored, v, both.high);
      low.word[v / 4] |= uint32_t(uint8_t(both.low)) << (v % 4 * 8);
    }
  } else if (stochastic) {
    stored = encode_group_stochastic<T, V>(dtype(kParamStream), p, random);
  } else {
    stored = encode_group<T, V>(dtype(kParamStream), p);
  }
  store_group<V>(e.param, dtype(kParamStream), aligned(kParamStream), i, e.numel, stored);
  if (e.ema != nullptr) {
    T average[V];
    decode_group<T, V>(dtype(kEmaStream), ema, average);
#pragma unroll
    for (int v = 0; v < V; ++v) average[v] += ema_weight * (p[v] - average[v]);
    store_group<V>(e.ema, dtype(kEmaStream), aligned(kEmaStream), i, e.numel, encode_group<T, V>(dtype(kEmaStream), average));
  }
  if (e.residual == nullptr) return;
  if (low_bits) return store_byte_group<V>(e.residual, aligned(kResidualStream), i, e.numel, low);
  T rest[V];
  decode_group<T, V>(dtype(kParamStream), stored, rest);
#pragma unroll
  for (int v = 0; v < V; ++v) rest[v] = common.residual == ResidualKind::kMaster ? p[v] : p[v] - rest[v];
  store_group<V>(e.residual, dtype(kResidualStream), aligned(kResidualStream), i, e.numel,
                 encode_group<T, V>(dtype(kResidualStream), rest));
}

// What `update` gets for elements i .. i + V of the totals of their rows or columns.
template <class Rule, class T, int V, class Entry>
__device__ __forceinline__ void load_totals(const Entry& e, const typename Rule::template Scalars<T>& scalars,
                                            const double* totals, Axis axis, int64_t i, int64_t numel, T* out) {
  const int64_t first = i > 0 ? i : 0;
  int64_t row = first / e.cols, col = first - row * e.cols;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    out[v] = T(1);
    if (i + v < 0 || i + v >= numel) continue;
    const int64_t segment = e.segment_begin + (axis == Axis::kRow ? row : col);
    if constexpr (has_segment_values<Rule>()) {
      out[v] = Rule::template segment_value<T>(scalars, totals + segment * product_count<Rule>());
    } else {
      out[v] = T(totals[segment]);
    }
    if (++col == e.cols) {
      col = 0;
      ++row;
    }
  }
}

}  // namespace momentum::cuda
