// The map on the GPU where states are quantised in blocks.
//
// A warp holds 256 consecutive elements, in two groups of four per thread: every block is whole within it, so its absmax is a
// reduction over the lanes between the rule and the store. The parameter is stepped with the new moments as they are; only what
// is kept of them is rounded. States of other tensors in the list may be plain.
#pragma once

#include "core/prepare.h"
#include "cuda/access.h"
#include "cuda/matrix_scales.h"
#include "cuda/param.h"
#include "cuda/table.h"

namespace momentum::cuda {

// The block that is last to finish a tensor makes the maxima its scales: no other reads the old ones any more.
template <class Rule, class ParamsType>
__device__ __forceinline__ void keep_scales(const ParamsType& params, const MapEntry<Rule, MapKind::kBlocks>& e) {
  if (params.header.maxima == nullptr || params.header.find_maxima) return;
  const auto chunks = uint32_t((e.numel + kChunk - 1) / kChunk);
  if (!arrive(params.header.tickets + e.index, chunks)) return;
  int64_t begin = e.maxima_begin;
  for (int k = 0; k < MapEntry<Rule, MapKind::kBlocks>::kStored; ++k) {
    const StateFormat& format = params.header.codecs[k].format;
    const bool quantised = stream_dtype(e.dtypes, kFirstState + k) == DType::kCodes;
    if (!quantised || !has_matrix_scales(format, e.matrix_rows, e.matrix_cols)) continue;
    const int64_t count = matrix_scales(format, e.matrix_rows, e.matrix_cols).count();
    auto* scales = static_cast<float*>(e.scales[k]);
    for (int64_t i = threadIdx.x; i < count; i += kThreads) scales[i] = params.header.maxima[begin + i];
    begin += count;
  }
}

template <class Rule>
__device__ __forceinline__ void map_chunk_blocks(const Params<Rule, float, MapEntry<Rule, MapKind::kBlocks>>& params,
                                                 const MapEntry<Rule, MapKind::kBlocks>& e,
                                                 const Prepared<Rule, float>& prepared, int64_t begin) {
  constexpr int kStored = MapEntry<Rule, MapKind::kBlocks>::kStored;
  constexpr int kGroups = kBlockGroups, V = kBlockGroup;
  constexpr int kTile = kThreads * kGroups * V;
  const CommonArgs& common = params.header.common;
  const bool is_fresh = fresh<Rule, float>(prepared.scalars);
  const uint32_t step = uint32_t(prepared.context.step);
  const int64_t numel = e.numel;
  const auto dtype = [&](int stream) { return stream_dtype(e.dtypes, stream); };
  const auto aligned = [&](int stream) { return stream_aligned(e.aligned, stream); };
  const auto is_stored = [&](int k) { return k < required_state_count<Rule>() || e.states[k] != nullptr; };
  const auto is_quantised = [&](int k) { return dtype(kFirstState + k) == DType::kCodes; };
  const auto is_matrix = [&](int k) {
    return is_quantised(k) && has_matrix_scales(params.header.codecs[k].format, e.matrix_rows, e.matrix_cols);
  };
  const bool find_maxima = params.header.find_maxima;
  const bool places_matter = params.header.maxima != nullptr && e.matrix_cols > 1;

  for (int tile = 0; tile < kChunk && begin + tile < numel; tile += kTile) {
    Raw param[kGroups], grad[kGroups], state[kStored > 0 ? kStored : 1][kGroups], residual[kGroups], ema[kGroups];
    float scale[kStored > 0 ? kStored : 1][kGroups];
    const int64_t first = begin + tile + int64_t(threadIdx.x / 32) * (32 * kGroups * V) + int64_t(threadIdx.x % 32) * V;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int64_t i = first + j * 32 * V;
      param[j] = load_group<V>(e.param, dtype(kParamStream), aligned(kParamStream), i, numel);
      grad[j] = load_group<V>(e.grad, dtype(kGradStream), aligned(kGradStream), i, numel);
#pragma unroll
      for (int k = 0; k < kStored; ++k) {
        state[k][j] = {{0, 0, 0, 0}};
        scale[k][j] = 0.0f;
        if (!is_stored(k) || is_fresh) continue;
        if (is_quantised(k)) {
          const BlockCodec& codec = params.header.codecs[k];
          state[k][j].word[0] = load_codes(codec, e.states[k], aligned(kFirstState + k), i, numel);
          ptx::assume_global(e.scales[k]);
          if (i < numel && !is_matrix(k))
            scale[k][j] = formats::load_scale(e.scales[k], codec.format.scale_dtype, i >> codec.block_shift);
        } else {
          state[k][j] = load_group<V>(e.states[k], dtype(kFirstState + k), aligned(kFirstState + k), i, numel);
        }
      }
      residual[j] = ema[j] = {{0, 0, 0, 0}};
      if (e.residual != nullptr) {
        residual[j] = load_residual<V>(common.residual, e.residual, dtype(kResidualStream), aligned(kResidualStream), i, numel);
      }
      if (e.ema != nullptr) ema[j] = load_group<V>(e.ema, dtype(kEmaStream), aligned(kEmaStream), i, numel);
    }
    float x[kGroups][V][kMaxStates];
    Place place[kGroups] = {};
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int64_t i = first + j * 32 * V;
      if (places_matter) place[j] = place_of(e.matrix_cols, i);
      float p[V], g[V], total[V];
      decode_group<float, V>(dtype(kParamStream), param[j], p);
      decode_group<float, V>(dtype(kGradStream), grad[j], g);
#pragma unroll
      for (int k = 0; k < kMaxStates; ++k) {
        float values[V];
#pragma unroll
        for (int v = 0; v < V; ++v) values[v] = 0.0f;
        if (k < kStored && !is_fresh) {
          if (is_quantised(k)) {
            const BlockCodec& codec = params.header.codecs[k];
            const bool matrix = is_matrix(k);
            decode_codes(codec, state[k][j].word[0], matrix ? 1.0f : scale[k][j], values);
            if (matrix) {
              float each[V];
              const MatrixScales shape = matrix_scales(codec.format, e.matrix_rows, e.matrix_cols);
              load_matrix_scales<V>(shape, e.scales[k], place[j], numel - i, each);
#pragma unroll
              for (int v = 0; v < V; ++v) values[v] *= each[v];
            }
          } else {
            decode_group<float, V>(dtype(kFirstState + k), state[k][j], values);
          }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) x[j][v][k] = values[v];
      }
      if (e.residual != nullptr) apply_residual<float, V>(common.residual, dtype(kResidualStream), param[j], residual[j], p);
      if constexpr (uses_segments<Rule>()) {
        load_totals<Rule, float, V>(e, prepared.scalars, common.totals, params.header.axis, i, numel, total);
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) total[v] = 0.0f;
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
        step_element<Rule, float>(prepared.frame, prepared.scalars, g[v], p[v], x[j][v], total[v]);
      }
      if (!find_maxima) store_param<float, V>(common, e, step, prepared.frame.ema_weight, i, p, ema[j]);
    }
    int64_t maxima_begin = e.maxima_begin;
#pragma unroll
    for (int k = 0; k < kStored; ++k) {
      if (!is_stored(k) || (find_maxima && !is_matrix(k))) continue;
      float values[kGroups][V];
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
#pragma unroll
        for (int v = 0; v < V; ++v) values[j][v] = x[j][v][k];
      }
      if (is_quantised(k)) {
        const BlockCodec& codec = params.header.codecs[k];
        if (is_matrix(k)) {
          const MatrixScales shape = matrix_scales(codec.format, e.matrix_rows, e.matrix_cols);
          float* maxima = params.header.maxima + maxima_begin;
          maxima_begin += shape.count();
#pragma unroll
          for (int j = 0; j < kGroups; ++j) {
            const int64_t left = numel - (first + j * 32 * V);
            if (find_maxima) {
              raise_scales<V>(shape, maxima, place[j], left, values[j]);
            } else {
              divide_by_scales<V>(shape, maxima, place[j], left, values[j]);
            }
          }
          if (find_maxima) continue;
        } else {
          scale_groups(codec, e.scales[k], first, numel, values);
        }
        uint32_t random[kGroups][V] = {};
        if (codec.format.stochastic) {
#pragma unroll
          for (int j = 0; j < kGroups; ++j) random_group<V>(e, state_seed(e.seed, k), step, first + j * 32 * V, random[j]);
        }
        store_groups(codec, e.states[k], aligned(kFirstState + k), first, numel, values, random);
        continue;
      }
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        store_group<V>(e.states[k], dtype(kFirstState + k), aligned(kFirstState + k), first + j * 32 * V, numel,
                       encode_group<float, V>(dtype(kFirstState + k), values[j]));
      }
    }
  }
}

}  // namespace momentum::cuda
