// The map on the GPU: one pass over a list of tensors, whatever their number, dtypes and alignment.
//
// A persistent grid strides over chunks of kChunk elements. A thread takes groups of V neighbours, which one access of up to
// 16 bytes moves: V = 4 in general, 8 when every stream has two bytes per element, 2 in double. The 32 lanes of a warp hold
// 32 V consecutive elements, so a block format of 128 elements finishes within one warp: its absmax is a reduction over the
// lanes between the rule and the store. Bytes moved per element: each stream once in, each written stream once out.
#pragma once

#include "core/prepare.h"
#include "cuda/access.h"
#include "cuda/map_blocks.h"
#include "cuda/param.h"
#include "cuda/table.h"

namespace momentum::cuda {

// Groups a thread keeps in flight: eight elements (four in double) in the plain kernel; the full one has streams enough.
template <class T, bool kFull, int V>
constexpr int groups_per_thread() {
  return kFull ? 1 : (sizeof(T) == 8 ? 4 : 8) / V;
}

template <class Rule, class T, MapKind kKind, int V>
__device__ __forceinline__ void map_chunk(const Params<Rule, T, MapEntry<Rule, kKind>>& params, const MapEntry<Rule, kKind>& e,
                                          const Prepared<Rule, T>& prepared, int64_t begin) {
  constexpr bool kFull = kKind == MapKind::kFull;
  constexpr int kStored = MapEntry<Rule, kKind>::kStored;
  constexpr int kGroups = groups_per_thread<T, kFull, V>();
  constexpr int kTile = kThreads * kGroups * V;
  const CommonArgs& common = params.header.common;
  const bool is_fresh = fresh<Rule, T>(prepared.scalars);
  const int64_t numel = e.numel;
  const auto dtype = [&](int stream) { return stream_dtype(e.dtypes, stream); };
  const auto aligned = [&](int stream) { return stream_aligned(e.aligned, stream); };

  for (int tile = 0; tile < kChunk && begin + tile < numel; tile += kTile) {
    Raw param[kGroups], grad[kGroups], state[kStored > 0 ? kStored : 1][kGroups], residual[kGroups], ema[kGroups];
    const int64_t first = begin + tile + int64_t(threadIdx.x) * V;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int64_t i = first + j * kThreads * V;
      param[j] = load_group<V>(e.param, dtype(kParamStream), aligned(kParamStream), i, numel);
      grad[j] = load_group<V>(e.grad, dtype(kGradStream), aligned(kGradStream), i, numel);
#pragma unroll
      for (int k = 0; k < kStored; ++k) {
        state[k][j] = {{0, 0, 0, 0}};
        const bool stored = k < required_state_count<Rule>() || e.states[k] != nullptr;
        if (stored && !is_fresh) {
          state[k][j] = load_group<V>(e.states[k], dtype(kFirstState + k), aligned(kFirstState + k), i, numel);
        }
      }
      if constexpr (kFull) {
        residual[j] = ema[j] = {{0, 0, 0, 0}};
        if (e.residual != nullptr) {
          residual[j] =
              load_residual<V>(common.residual, e.residual, dtype(kResidualStream), aligned(kResidualStream), i, numel);
        }
        if (e.ema != nullptr) ema[j] = load_group<V>(e.ema, dtype(kEmaStream), aligned(kEmaStream), i, numel);
      }
    }
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int64_t i = first + j * kThreads * V;
      T p[V], g[V], x[V][kMaxStates], total[V];
      decode_group<T, V>(dtype(kParamStream), param[j], p);
      decode_group<T, V>(dtype(kGradStream), grad[j], g);
#pragma unroll
      for (int k = 0; k < kStored; ++k) {
        T values[V];
        decode_group<T, V>(dtype(kFirstState + k), state[k][j], values);
#pragma unroll
        for (int v = 0; v < V; ++v) x[v][k] = values[v];
      }
#pragma unroll
      for (int k = kStored; k < kMaxStates; ++k) {
#pragma unroll
        for (int v = 0; v < V; ++v) x[v][k] = T(0);
      }
      if constexpr (kFull) {
        if (e.residual != nullptr) {
          apply_residual<T, V>(common.residual, dtype(kResidualStream), param[j], residual[j], p);
        }
      }
      if constexpr (uses_segments<Rule>()) {
        load_totals<Rule, T, V>(e, prepared.scalars, common.totals, params.header.axis, i, numel, total);
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) total[v] = T(0);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) step_element<Rule, T>(prepared.frame, prepared.scalars, g[v], p[v], x[v], total[v]);

      const auto store = [&](void* base, int stream, const T* values) {
        store_group<V>(base, dtype(stream), aligned(stream), i, numel, encode_group<T, V>(dtype(stream), values));
      };
#pragma unroll
      for (int k = 0; k < kStored; ++k) {
        if (k >= required_state_count<Rule>() && e.states[k] == nullptr) continue;
        T values[V];
#pragma unroll
        for (int v = 0; v < V; ++v) values[v] = x[v][k];
        store(e.states[k], kFirstState + k, values);
      }
      if constexpr (kFull) {
        store_param<T, V>(common, e, uint32_t(prepared.context.step), prepared.frame.ema_weight, i, p, ema[j]);
      } else {
        store(e.param, kParamStream, p);
      }
    }
  }
}

// The block that finishes last counts the step: by then every block has read the old number.
template <class ParamsType>
__device__ __forceinline__ void count_step(const ParamsType& params, uint32_t* arrivals) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrivals, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  for (uint32_t i = threadIdx.x; i < params.header.entries; i += kThreads) {
    params.header.common.steps[entry_of(params, i).index] += 1.0f;
  }
  if (threadIdx.x == 0) atomicExch(arrivals, 0u);
}

// Two blocks fit a multiprocessor: one alone would not have enough bytes in flight. Every option at once beside a rule that
// needs many registers, rules with four states, and quantised states need more than that leaves.
template <class Rule, MapKind kKind>
inline constexpr bool kNeedsRegisters =
    state_count<Rule>() >= 4 || kKind == MapKind::kBlocks || (kKind == MapKind::kFull && many_registers<Rule>());

template <class Rule, class T, MapKind kKind>
__global__ void __launch_bounds__(kThreads, (kNeedsRegisters<Rule, kKind> ? 1 : 2))
    map_kernel(const Params<Rule, T, MapEntry<Rule, kKind>> __grid_constant__ params, uint32_t* arrivals) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ MapEntry<Rule, kKind> e;
  const auto constants = constants_of<Rule, T>(params);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    const int64_t begin = int64_t(chunk - e.first_chunk) * kChunk - e.shift;
    if constexpr (kKind == MapKind::kBlocks) {
      map_chunk_blocks<Rule>(params, e, prepared, begin);
      keep_scales<Rule>(params, e);
    } else if constexpr (sizeof(T) == 8) {
      map_chunk<Rule, T, kKind, 2>(params, e, prepared, begin);
    } else {
      if (e.wide) {
        map_chunk<Rule, T, kKind, 8>(params, e, prepared, begin);
      } else {
        map_chunk<Rule, T, kKind, 4>(params, e, prepared, begin);
      }
    }
  }
  if (kKind == MapKind::kBlocks && params.header.find_maxima) return;
  count_step(params, arrivals);
}

}  // namespace momentum::cuda
