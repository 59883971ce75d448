// Several sums per segment in one pass, in double: a tensor's or its rows'. As in reduce.h, a block sums a range of one segment
// and the block that finishes the segment last adds the partial sums in a fixed order; here it may also be the last of its
// tensor, and then makes the sums of the tensor out of those of the rows, and of these what the map's `prepare` reads. One
// launch.
#pragma once

#include "cuda/reduce.h"

namespace momentum::cuda {

// The sums of a tensor out of those of its rows, in all threads' work; valid in thread 0.
template <class Rule, class T>
__device__ __forceinline__ void sum_segments(const ReduceEntry<Rule>& e, const typename Rule::template Constants<T>& constants,
                                             const TensorContext<T>& context, const double* rows, double* sums) {
  constexpr int kWidth = product_count<Rule>();
#pragma unroll
  for (int j = 0; j < sum_count<Rule>(); ++j) sums[j] = 0;
  for (int64_t row = threadIdx.x; row < e.rows; row += kThreads) {
    double one[kWidth], out[sum_count<Rule>()];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) one[j] = __ldcg(rows + row * kWidth + j);
    Rule::template summarize<T>(constants, context, one, out);
#pragma unroll
    for (int j = 0; j < sum_count<Rule>(); ++j) sums[j] += out[j];
  }
#pragma unroll
  for (int j = 0; j < sum_count<Rule>(); ++j) sums[j] = reduce_block(ReduceOp::kSum, sums[j]);
}

template <class Rule, class T>
__global__ void __launch_bounds__(kThreads, 1)
    products_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  constexpr int V = reduce_width<T>(), kWidth = product_count<Rule>();
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ ReduceEntry<Rule> e;
  const auto constants = constants_of<Rule, T>(params);
  const bool settles = params.header.finalize;
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    const Measure<Rule, T> measure = make_measure<Rule, T>(common, e, prepared, 0, params.header.codecs);
    const uint32_t local = chunk - e.first_chunk;
    const int64_t segments = params.header.axis == Axis::kRow ? e.rows : 1;
    const int64_t length = params.header.axis == Axis::kRow ? e.cols : e.numel;
    double* totals = common.totals + e.total_begin;
    double sums[kWidth] = {};

    if (segments > 1 && length <= kWarpSegment) {
      const int64_t segment = int64_t(local) * kWarps + threadIdx.x / 32;
      if (segment < segments) {
        const int64_t begin = segment * length;
        for (int64_t i = int64_t(threadIdx.x % 32) * V; i < length; i += 32 * V) {
          measure.template products<V>(sums, begin + i, begin + length);
        }
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          sums[j] = reduce_warp(ReduceOp::kSum, sums[j]);
          if (threadIdx.x % 32 == 0) totals[segment * kWidth + j] = sums[j];
        }
      }
    } else {
      const int64_t pieces = length > kReduceRange ? (length + kReduceRange - 1) / kReduceRange : 1;
      const int64_t segment = local / pieces, piece = local % pieces;
      const int64_t begin = segment * length + piece * kReduceRange;
      const int64_t end = (segment + 1) * length < begin + kReduceRange ? (segment + 1) * length : begin + kReduceRange;
      for (int64_t i = begin + int64_t(threadIdx.x) * V; i < end; i += kThreads * V) measure.template products<V>(sums, i, end);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j] = reduce_block(ReduceOp::kSum, sums[j]);
      bool complete = true;
      if (pieces > 1) {
        double* partials = params.header.partials + e.partial_begin + segment * pieces * kWidth;
        if (threadIdx.x == 0) {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) partials[piece * kWidth + j] = sums[j];
        }
        complete = arrive(params.header.tickets + e.ticket_begin + segment, uint32_t(pieces));
        if (complete) {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            double sum = 0;
            for (int64_t i = threadIdx.x; i < pieces; i += kThreads) sum += __ldcg(partials + i * kWidth + j);
            sums[j] = reduce_block(ReduceOp::kSum, sum);
          }
        }
      }
      if (complete && threadIdx.x == 0) {
        if constexpr (sum_count<Rule>() == 0) {
          if (settles) settle<Rule, T>(constants, prepared.context, sums);
        }
#pragma unroll
        for (int j = 0; j < kWidth; ++j) totals[segment * kWidth + j] = sums[j];
      }
    }

    if constexpr (sum_count<Rule>() > 0) {
      if (!settles) continue;
      const bool cut = (segments <= 1 || length > kWarpSegment) && length > kReduceRange;
      const int64_t ticket = e.ticket_begin + (cut ? segments : 0);
      __threadfence();
      if (!arrive(params.header.tickets + ticket, uint32_t(e.chunks))) continue;
      double whole[sum_count<Rule>()];
      sum_segments<Rule, T>(e, constants, prepared.context, totals, whole);
      if (threadIdx.x == 0) {
        settle<Rule, T>(constants, prepared.context, whole);
#pragma unroll
        for (int j = 0; j < sum_count<Rule>(); ++j) common.totals[e.sums_begin + j] = whole[j];
      }
    }
  }
}

// The same in steps of their own, between which other processes add their parts: of tensors with rows the sums of these, and
// what is read of the sums once they are complete.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    finish_products_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  const auto constants = constants_of<Rule, T>(params);
  for (uint32_t i = blockIdx.x; i < params.header.entries; i += gridDim.x) {
    const auto& e = entry_of(params, i);  // without its rates, which play no part
    const auto context = make_context<Rule, T>(common, params.header.layout, facts_of<Rule>(e));
    double* stored = common.totals + e.sums_begin;
    if constexpr (sum_count<Rule>() > 0) {
      if (!params.header.finalize) {
        double whole[sum_count<Rule>()];
        sum_segments<Rule, T>(e, constants, context, common.totals + e.total_begin, whole);
        if (threadIdx.x == 0) {
#pragma unroll
          for (int j = 0; j < sum_count<Rule>(); ++j) stored[j] = whole[j];
        }
        continue;
      }
    }
    if (threadIdx.x == 0) settle<Rule, T>(constants, context, stored);
  }
}

}  // namespace momentum::cuda
