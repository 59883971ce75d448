// Reductions on the CPU: partial totals of ranges, whose borders depend on the tensor alone.
//
// Inside a tile, 64 lanes add in the arithmetic type (4 terms each); lanes, tiles and ranges are combined in double, so the
// error does not grow with the size of the tensor.
#pragma once

#include "core/prepare.h"
#include "cpu/kernels.h"
#include "cpu/map.h"
#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {

inline constexpr int kLanes = 64;

// The operands of reduction k for elements [begin, begin + n), n <= kTile.
template <class Rule, class T>
struct MeasureTile {
  const Task& task;
  const Prepared<Rule, T>& prepared;
  int k;
  T buffers[3 + kMaxStates][kTile];  // not initialised: clearing them would cost more than a short row
  T blocks[kMaxStates][kTile + 2 * kLargestBlock];
  T values[has_segment_values<Rule>() ? kTile : 1];

  MeasureTile(const Task& of, const Prepared<Rule, T>& with, int reduction) : task(of), prepared(with), k(reduction) {}

  // Where the streams of elements [begin, begin + n) can be read in the arithmetic type.
  struct Streams {
    const T *g, *p, *x[kMaxStates];
  };

  Streams open_all(int64_t begin, int n) {
    constexpr int kStates = state_count<Rule>();
    const TensorArgs& t = *task.tensor;
    const bool own = k < reduction_count<Rule>();
    const bool is_fresh = fresh<Rule, T>(prepared.scalars);
    const ParamStream<T> param(t, *task.common, 0, buffers[0], buffers[2 + kMaxStates], nullptr);
    const bool reads_param = reductions_read_param<Rule>() || prepared.frame.l2 != T(0);
    Streams streams{};
    streams.g = open(t.grad, t.grad_dtype, buffers[1], begin, n);
    streams.p = reads_param ? param.open(begin, n) : streams.g;
    for (int s = 0; s < kStates; ++s) {
      const bool read = t.states[s] != nullptr && !is_fresh && (!own || (reduction_reads<Rule>() >> s & 1u) != 0);
      if (read) {
        streams.x[s] = open_state(s, begin, n);
      } else {
        for (int i = 0; i < n; ++i) buffers[2 + s][i] = T(0);
        streams.x[s] = buffers[2 + s];
      }
    }
    return streams;
  }

  void fill(int64_t begin, int n, T* __restrict out) {
    constexpr int kStates = state_count<Rule>();
    const Streams streams = open_all(begin, n);
    const T *g = streams.g, *p = streams.p;
    const T* x[kMaxStates] = {streams.x[0], streams.x[1], streams.x[2], streams.x[3]};
    const Frame<T> frame = prepared.frame;
    const auto scalars = prepared.scalars;
    const int reduction = k;
    if constexpr (has_segment_values<Rule>()) segment_totals<Rule, T>(task, scalars, begin, n, values);
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
      T state[kMaxStates] = {};
      for (int s = 0; s < kStates; ++s) state[s] = x[s][i];
      T value = T(1);
      if constexpr (has_segment_values<Rule>()) value = values[i];
      out[i] = measure<Rule, T>(reduction, frame, scalars, g[i], p[i], state, value);
    }
  }

  // Of a quantised state all blocks that the range touches are decoded.
  const T* open_state(int s, int64_t begin, int n) {
    const TensorArgs& t = *task.tensor;
    if constexpr (sizeof(T) == sizeof(float)) {
      if (t.state_dtypes[s] == DType::kCodes) {
        const StateFormat& format = task.common->state_formats[s];
        const int64_t first = begin / format.block * format.block;
        const int64_t past = (begin + n + format.block - 1) / format.block * format.block;
        decode_state(t, format, s, first, int((past < t.numel ? past : t.numel) - first), blocks[s]);
        return blocks[s] + (begin - first);
      }
    }
    return open(t.states[s], t.state_dtypes[s], buffers[2 + s], begin, n);
  }

  static const T* open(const void* base, DType dtype, T* buffer, int64_t begin, int n) {
    if (dtype == native_dtype<T>()) return at<T>(base, begin);
    decode<T>(dtype, base, begin, n, buffer);
    return buffer;
  }
};

template <class T>
static inline double combine(ReduceOp op, double a, T b) {
  return op == ReduceOp::kMax ? math::max(a, double(b)) : a + double(b);
}

// Combines a tile into the range's 64 totals in double, through lanes in the arithmetic type. The lanes meet once per range: a
// chain of 64 dependent additions takes longer than reading a tile.
template <class T>
static inline void combine_tile(ReduceOp op, const T* __restrict values, int n, double* __restrict totals) {
  const int whole = n - n % kLanes;
  if (whole > 0) {
    T lanes[kLanes] = {};
    if (op == ReduceOp::kMax) {
      for (int i = 0; i < whole; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) lanes[j] = math::max(lanes[j], values[i + j]);
      }
      for (int j = 0; j < kLanes; ++j) totals[j] = math::max(totals[j], double(lanes[j]));
    } else {
      for (int i = 0; i < whole; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) lanes[j] += values[i + j];
      }
      for (int j = 0; j < kLanes; ++j) totals[j] += double(lanes[j]);
    }
  }
  for (int i = whole; i < n; ++i) totals[i - whole] = combine(op, totals[i - whole], values[i]);
}

static inline double total_of_lanes(ReduceOp op, double* totals) {
  constexpr int kLast = 8;
  for (int i = kLast; i < kLanes; i += kLast) {
    for (int j = 0; j < kLast; ++j) {
      totals[j] = op == ReduceOp::kMax ? math::max(totals[j], totals[i + j]) : totals[j] + totals[i + j];
    }
  }
  double total = 0;
  for (int j = 0; j < kLast; ++j) total = combine(op, total, totals[j]);
  return total;
}

template <class Rule, class T>
static double reduce_typed(const Task& task, int k, int64_t begin, int64_t end) {
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  const ReduceOp op = reduce_op<Rule>(k, task.common->hypers);
  MeasureTile<Rule, T> measure_tile(task, prepared, k);
  alignas(64) T values[kTile];
  double totals[kLanes] = {};
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    measure_tile.fill(i, n, values);
    combine_tile(op, values, n, totals);
  }
  return total_of_lanes(op, totals);
}

template <class Rule, class T>
static void reduce_columns_typed(const Task& task, int k, int64_t row_begin, int64_t row_end, int64_t begin, int64_t end,
                                 double* totals) {
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  const ReduceOp op = reduce_op<Rule>(k, task.common->hypers);
  MeasureTile<Rule, T> measure_tile(task, prepared, k);
  alignas(64) T values[kTile];
  for (int64_t c = 0; c < end - begin; ++c) totals[c] = 0;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t c = begin; c < end; c += kTile) {
      const int n = int(end - c < kTile ? end - c : kTile);
      measure_tile.fill(row * task.tensor->cols + c, n, values);
      double* __restrict out = totals + (c - begin);
      if (op == ReduceOp::kMax) {
        for (int i = 0; i < n; ++i) out[i] = math::max(out[i], double(values[i]));
      } else {
        for (int i = 0; i < n; ++i) out[i] += double(values[i]);
      }
    }
  }
}

template <class Rule>
static double reduce_task(const Task& task, int k, int64_t begin, int64_t end) {
  return task.tensor->param_dtype == DType::kFloat64 ? reduce_typed<Rule, double>(task, k, begin, end)
                                                     : reduce_typed<Rule, float>(task, k, begin, end);
}

template <class Rule>
static void reduce_columns_task(const Task& task, int k, int64_t row_begin, int64_t row_end, int64_t begin, int64_t end,
                                double* totals) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    reduce_columns_typed<Rule, double>(task, k, row_begin, row_end, begin, end, totals);
  } else {
    reduce_columns_typed<Rule, float>(task, k, row_begin, row_end, begin, end, totals);
  }
}

template <class Rule, class T>
static void finalize_typed(const Task& task, int k, double total) {
  const auto& constants = *reinterpret_cast<const typename Rule::template Constants<T>*>(task.constants[sizeof(T) == 8].bytes);
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  finalize<Rule, T>(k, constants, prepared.context, total, task.tensor->scalars);
}

template <class Rule>
static void finalize_task(const Task& task, int k, double total) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    finalize_typed<Rule, double>(task, k, total);
  } else {
    finalize_typed<Rule, float>(task, k, total);
  }
}

}  // namespace momentum::cpu::MOMENTUM_ISA
