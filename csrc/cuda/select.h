// The passes of a selection (core/selection.h) on the GPU. A block counts a range of a tensor in shared memory and adds its
// counts to the tensor's, which are integers in double: their order does not matter. The block that finishes a tensor last
// chooses the digit. One launch per pass; g and the state are read, 8 bytes per float32 element.
#pragma once

#include "core/selection.h"
#include "cuda/reduce.h"

namespace momentum::cuda {

inline constexpr int64_t kSelectionRange = 32768;  // elements: few enough to balance, enough for the counts to be worth adding

inline int64_t selection_chunks(int64_t numel) { return (numel + kSelectionRange - 1) / kSelectionRange; }

// The digit of one tensor, by a block, from its counts.
template <class Rule>
__device__ __forceinline__ void choose_digit(const CommonArgs& common, const TotalsLayout& layout, int k, int64_t tensor,
                                             double* counts) {
  __shared__ double sums[kThreads];
  const int bins = selection_bins(k), each = bins / kThreads;
  double sum = 0;
  for (int b = 0; b < each; ++b) sum += __ldcg(counts + threadIdx.x * each + b);
  __syncthreads();  // the tensor before is done
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double digits = 0, rest = 0;
  if (k == 0) {
    for (int i = 0; i < kThreads; ++i) rest += sums[i];
    rest = Rule::selected(common.hypers, rest);
  } else {
    const double* before = selection_result<Rule>(common.totals, layout, k - 1, tensor);
    digits = before[kSelectedDigits];
    rest = before[kSelectedRest];
  }
  const int group = selection_search(kThreads, rest, [&](int i) { return sums[i]; });
  const int bin = selection_search(each, rest, [&](int b) { return __ldcg(counts + group * each + b); });
  counts[bins + kSelectedDigits] = digits * bins + (group * each + bin);
  counts[bins + kSelectedRest] = rest;
}

template <class Rule, class T>
__global__ void __launch_bounds__(kThreads, 1)
    select_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  constexpr int V = reduce_width<T>();
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ ReduceEntry<Rule> e;
  __shared__ uint32_t bins[selection_bins(0)];
  const auto constants = constants_of<Rule, T>(params);
  const int k = params.header.reduction, count = selection_bins(k);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    for (int b = threadIdx.x; b < count; b += kThreads) bins[b] = 0;
    __syncthreads();
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    const Measure<Rule, T> measure = make_measure<Rule, T>(common, e, prepared, k, params.header.codecs);
    uint32_t digits = 0;
    if (k > 0) {
      digits = uint32_t(selection_result<Rule>(common.totals, params.header.layout, k - 1, e.index)[kSelectedDigits]);
    }
    const int64_t begin = int64_t(chunk - e.first_chunk) * kSelectionRange;
    const int64_t end = begin + kSelectionRange < e.numel ? begin + kSelectionRange : e.numel;
    for (int64_t i = begin + int64_t(threadIdx.x) * V; i < end; i += kThreads * V) {
      T p[V], g[V], x[V][kMaxStates];
      measure.template load<V>(i, end, g, p, x);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (i + v >= end) continue;
        const T value = momentum::measure<Rule, T>(k, prepared.frame, prepared.scalars, g[v], p[v], x[v]);
        const int bin = selection_bin(k, digits, selection_key(value));
        if (bin >= 0) atomicAdd(bins + bin, 1u);
      }
    }
    __syncthreads();
    double* counts = common.totals + e.total_begin;
    for (int b = threadIdx.x; b < count; b += kThreads) {
      if (bins[b] != 0) atomicAdd(counts + b, double(bins[b]));
    }
    if (!params.header.finalize) continue;
    __threadfence();
    const auto pieces = uint32_t((e.numel + kSelectionRange - 1) / kSelectionRange);
    if (!arrive(params.header.tickets + e.ticket_begin, pieces)) continue;
    choose_digit<Rule>(common, params.header.layout, k, e.index, counts);
  }
}

// The digits of tensors whose counts were completed elsewhere, as those of sharded tensors are. A block takes a tensor.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads) choose_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  const auto& e = entry_of(params, blockIdx.x);  // without its rates, which play no part
  choose_digit<Rule>(common, params.header.layout, params.header.reduction, e.index, common.totals + e.total_begin);
}

}  // namespace momentum::cuda
