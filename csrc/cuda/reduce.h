// Segmented reductions on the GPU: per tensor, per row, per column; sums and maxima; two stages in one launch.
//
// A block reduces a range of one segment to a partial total; the block that finishes a segment last adds its partial totals in
// a fixed order. Ranges depend on the tensor alone and lane assignment on neither alignment nor grid, so the bits depend on
// nothing but the values. A lane adds at most 64 terms in the arithmetic type before the tree; partial totals are combined in
// double.
#pragma once

#include "core/prepare.h"
#include "cuda/access.h"
#include "cuda/matrix_scales.h"
#include "cuda/param.h"
#include "cuda/table.h"

namespace momentum::cuda {

template <class T>
__device__ __forceinline__ T combine(ReduceOp op, T a, T b) {
  return op == ReduceOp::kMax ? math::max(a, b) : a + b;
}

template <class T>
__device__ __forceinline__ T reduce_warp(ReduceOp op, T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value = combine(op, value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// The total over the block, in thread 0.
template <class T>
__device__ __forceinline__ T reduce_block(ReduceOp op, T value) {
  __shared__ T warps[kWarps];
  value = reduce_warp(op, value);
  __syncthreads();  // the previous use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) value = reduce_warp(op, threadIdx.x < kWarps ? warps[threadIdx.x] : T(0));
  return value;
}

template <class T>
constexpr int reduce_width() {
  return sizeof(T) == 8 ? 2 : 4;
}

// What the reduction of one tensor reads and how it is measured.
template <class Rule, class T>
struct Measure {
  using Entry = ReduceEntry<Rule>;
  const Entry& e;
  const Prepared<Rule, T>& prepared;
  int k;
  bool reads_param;
  bool is_fresh;
  ResidualKind residual;
  const BlockCodec* codecs;
  const double* totals;

  __device__ __forceinline__ bool reads(int state) const {
    const bool own = k < reduction_count<Rule>();
    return e.states[state] != nullptr && !is_fresh && (!own || (reduction_reads<Rule>() >> state & 1u) != 0);
  }

  // Reads elements i .. i + V that lie before `end`.
  template <int V>
  __device__ __forceinline__ void load(int64_t i, int64_t end, T* g, T* p, T (*x)[kMaxStates]) const {
    const bool on_border = i % V == 0;  // a row may begin between two groups
    const auto aligned = [&](int stream) { return on_border && stream_aligned(e.aligned, stream); };
    const Raw grad = load_group<V>(e.grad, stream_dtype(e.dtypes, kGradStream), aligned(kGradStream), i, end);
    Raw param = grad;
    if (reads_param) {
      param = load_group<V>(e.param, stream_dtype(e.dtypes, kParamStream), aligned(kParamStream), i, end);
    }
#pragma unroll
    for (int s = 0; s < kMaxStates; ++s) {
      T values[V];
#pragma unroll
      for (int v = 0; v < V; ++v) values[v] = T(0);
      if constexpr (Entry::kStored > 0) {
        if (s < Entry::kStored && reads(s)) {
          const DType dtype = stream_dtype(e.dtypes, kFirstState + s);
          if (sizeof(T) == sizeof(float) && dtype == DType::kCodes) {
            float decoded[V];
            decode_anywhere<V>(codecs[s], e.states[s], e.scales[s], e.matrix_rows, e.matrix_cols, i, end, decoded);
#pragma unroll
            for (int v = 0; v < V; ++v) values[v] = T(decoded[v]);
          } else {
            decode_group<T, V>(dtype, load_group<V>(e.states[s], dtype, aligned(kFirstState + s), i, end), values);
          }
        }
      }
#pragma unroll
      for (int v = 0; v < V; ++v) x[v][s] = values[v];
    }
    decode_group<T, V>(stream_dtype(e.dtypes, kGradStream), grad, g);
    decode_group<T, V>(stream_dtype(e.dtypes, reads_param ? kParamStream : kGradStream), param, p);
    if (reads_param && e.residual != nullptr) {
      const DType dtype = stream_dtype(e.dtypes, kResidualStream);
      const Raw rest = load_residual<V>(residual, e.residual, dtype, aligned(kResidualStream), i, end);
      apply_residual<T, V>(residual, dtype, param, rest, p);
    }
  }

  // Adds elements i .. i + V that lie before `end`.
  template <int V>
  __device__ __forceinline__ T group(ReduceOp op, T total, int64_t i, int64_t end) const {
    T p[V], g[V], x[V][kMaxStates], value[V];
    load<V>(i, end, g, p, x);
    if constexpr (has_segment_values<Rule>()) {
      load_totals<Rule, T, V>(e, prepared.scalars, totals, Axis::kRow, i, end, value);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] = T(1);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (i + v < end) {
        const T one = momentum::measure<Rule, T>(k, prepared.frame, prepared.scalars, g[v], p[v], x[v], value[v]);
        total = combine(op, total, one);
      }
    }
    return total;
  }

  // Adds to the sums that one pass makes.
  template <int V>
  __device__ __forceinline__ void products(double* sums, int64_t i, int64_t end) const {
    T p[V], g[V], x[V][kMaxStates];
    load<V>(i, end, g, p, x);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (i + v >= end) continue;
      double out[product_count<Rule>()];
      momentum::products<Rule, T>(prepared.frame, prepared.scalars, g[v], p[v], x[v], out);
#pragma unroll
      for (int j = 0; j < product_count<Rule>(); ++j) sums[j] += out[j];
    }
  }
};

template <class Rule, class T>
__device__ __forceinline__ Measure<Rule, T> make_measure(const CommonArgs& common, const ReduceEntry<Rule>& e,
                                                         const Prepared<Rule, T>& prepared, int k, const BlockCodec* codecs) {
  const bool reads_param = reductions_read_param<Rule>() || prepared.frame.l2 != T(0);
  return {e, prepared, k, reads_param, fresh<Rule, T>(prepared.scalars), common.residual, codecs, common.totals};
}

template <class Rule, class T, class ParamsType>
__device__ __forceinline__ void finish_segment(const ParamsType& params, const ReduceEntry<Rule>& e,
                                               const typename Rule::template Constants<T>& constants,
                                               const Prepared<Rule, T>& prepared, int64_t segment, double total) {
  params.header.common.totals[e.total_begin + segment] = total;
  if constexpr (requires { e.scalars; }) {
    if (params.header.finalize) {
      finalize<Rule, T>(params.header.reduction, constants, prepared.context, total, e.scalars);
    }
  }
}

// Segments that are contiguous: tensors or rows.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  constexpr int V = reduce_width<T>();
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ ReduceEntry<Rule> e;
  const auto constants = constants_of<Rule, T>(params);
  const int k = params.header.reduction;
  const ReduceOp op = reduce_op<Rule>(k, common.hypers);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    const Measure<Rule, T> measure = make_measure<Rule, T>(common, e, prepared, k, params.header.codecs);
    const uint32_t local = chunk - e.first_chunk;
    const int64_t segments = params.header.axis == Axis::kRow ? e.rows : 1;
    const int64_t length = params.header.axis == Axis::kRow ? e.cols : e.numel;

    if (segments > 1 && length <= kWarpSegment) {
      const int64_t segment = int64_t(local) * kWarps + threadIdx.x / 32;
      if (segment < segments) {
        T total = T(0);
        const int64_t begin = segment * length;
        for (int64_t i = int64_t(threadIdx.x % 32) * V; i < length; i += 32 * V) {
          total = measure.template group<V>(op, total, begin + i, begin + length);
        }
        total = reduce_warp(op, total);
        if (threadIdx.x % 32 == 0) finish_segment<Rule, T>(params, e, constants, prepared, segment, double(total));
      }
      continue;
    }

    const int64_t pieces = length > kReduceRange ? (length + kReduceRange - 1) / kReduceRange : 1;
    const int64_t segment = local / pieces, piece = local % pieces;
    const int64_t begin = segment * length + piece * kReduceRange;
    const int64_t end = (segment + 1) * length < begin + kReduceRange ? (segment + 1) * length : begin + kReduceRange;
    T total = T(0);
    for (int64_t i = begin + int64_t(threadIdx.x) * V; i < end; i += kThreads * V) {
      total = measure.template group<V>(op, total, i, end);
    }
    total = reduce_block(op, total);
    if (pieces == 1) {
      if (threadIdx.x == 0) finish_segment<Rule, T>(params, e, constants, prepared, segment, double(total));
      continue;
    }
    double* partials = params.header.partials + e.partial_begin + segment * pieces;
    if (threadIdx.x == 0) partials[piece] = double(total);
    if (!arrive(params.header.tickets + e.ticket_begin + segment, uint32_t(pieces))) continue;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += kThreads) sum = combine(op, sum, __ldcg(partials + i));
    sum = reduce_block(op, sum);
    if (threadIdx.x == 0) finish_segment<Rule, T>(params, e, constants, prepared, segment, sum);
  }
}

// Columns: a block takes kThreads columns of kColumnRows rows. Only for rules with segments.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_columns_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ ReduceEntry<Rule> e;
  const auto constants = constants_of<Rule, T>(params);
  const int k = params.header.reduction;
  const ReduceOp op = reduce_op<Rule>(k, common.hypers);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    const Measure<Rule, T> measure = make_measure<Rule, T>(common, e, prepared, k, params.header.codecs);
    const int64_t row_blocks = e.rows > kColumnRows ? (e.rows + kColumnRows - 1) / kColumnRows : 1;
    const int64_t local = chunk - e.first_chunk;
    const int64_t column_block = local / row_blocks, row_block = local % row_blocks;
    const int64_t column = column_block * kThreads + threadIdx.x;
    const int64_t row_end = (row_block + 1) * kColumnRows < e.rows ? (row_block + 1) * kColumnRows : e.rows;
    double sum = 0;
    if (column < e.cols) {
      for (int64_t row = row_block * kColumnRows; row < row_end; row += 32) {
        T total = T(0);
        const int64_t stop = row + 32 < row_end ? row + 32 : row_end;
        for (int64_t r = row; r < stop; ++r) {
          const int64_t i = r * e.cols + column;
          total = measure.template group<1>(op, total, i, i + 1);
        }
        sum = combine(op, sum, double(total));
      }
    }
    if (row_blocks == 1) {
      if (column < e.cols) finish_segment<Rule, T>(params, e, constants, prepared, column, sum);
      continue;
    }
    double* partials = params.header.partials + e.partial_begin;
    if (column < e.cols) partials[row_block * e.cols + column] = sum;
    __threadfence();
    if (!arrive(params.header.tickets + e.ticket_begin + column_block, uint32_t(row_blocks))) continue;
    if (column < e.cols) {
      sum = 0;
      for (int64_t b = 0; b < row_blocks; ++b) sum = combine(op, sum, __ldcg(partials + b * e.cols + column));
      finish_segment<Rule, T>(params, e, constants, prepared, column, sum);
    }
  }
}

// Finalises reductions whose totals were completed elsewhere, as those of sharded tensors are.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads) finalize_kernel(const Params<Rule, T, ReduceEntry<Rule>> __grid_constant__ params) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  const auto constants = constants_of<Rule, T>(params);
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < params.header.entries; i += gridDim.x * kThreads) {
    const auto& e = entry_of(params, i);  // without its rates, which finalising does not need
    const Prepared<Rule, T> prepared = prepare<Rule, T>(common, constants, params.header.layout, facts_of<Rule>(e));
    finish_segment<Rule, T>(params, e, constants, prepared, 0, common.totals[e.total_begin]);
  }
}

}  // namespace momentum::cuda
