// Reductions on the CPU: totals of ranges, whose borders depend on the tensor alone.
//
// Inside a tile, 64 lanes add in the arithmetic type (8 terms each); lanes, tiles and ranges are combined in double, so the
// error does not grow with the size of the tensor. The lanes stay in registers where the rule makes its operands in vectors.
#pragma once

#include "cpu/measure.h"

namespace momentum::cpu::MOMENTUM_ISA {

inline constexpr int kLanes = 64;

template <class T>
static inline double combine(ReduceOp op, double a, T b) {
  return op == ReduceOp::kMax ? math::max(a, double(b)) : a + double(b);
}

template <class T>
static inline void combine_all(ReduceOp op, const T* __restrict values, int n, double* __restrict totals) {
  if (op == ReduceOp::kMax) {
    for (int i = 0; i < n; ++i) totals[i] = math::max(totals[i], double(values[i]));
  } else {
    for (int i = 0; i < n; ++i) totals[i] += double(values[i]);
  }
}

// Maxima are of numbers that are not negative, which the order of their bits is that of, with NaN above all.
template <ReduceOp kOp>
static inline Floats combine_vectors(Floats a, Floats b) {
  if constexpr (kOp == ReduceOp::kMax) {
    return as_floats(as_ints(a) > as_ints(b) ? as_ints(a) : as_ints(b));
  } else {
    return a + b;
  }
}

// body(kParam, kAnyState): the constants that MeasureTile::vector takes, for what a tile reads.
template <class Tile, class Body>
static inline void for_reads(const Tile& tile, const Body& body) {
  constexpr std::true_type kYes;
  constexpr std::false_type kNo;
  if (tile.reads_param()) {
    tile.reads_states() ? body(kYes, kYes) : body(kYes, kNo);
  } else {
    tile.reads_states() ? body(kNo, kYes) : body(kNo, kNo);
  }
}

// Elements [0, n), n a multiple of kLanes, combined in lanes.
template <ReduceOp kOp, class Tile>
static inline void combine_tile(const Tile& tile, const typename Tile::Streams& streams, int n, float* lanes) {
  constexpr int kVectors = kLanes / kVector;
  Floats total[kVectors] = {};
  for_reads(tile, [&](auto param, auto any_state) {
    for (int i = 0; i < n; i += kLanes) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Floats value = tile.template vector<param, any_state>(streams, i + v * kVector);
        total[v] = combine_vectors<kOp>(total[v], value);
      }
    }
  });
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) store(lanes + v * kVector, total[v]);
}

// The same of values in memory.
template <class T>
static inline void combine_values(ReduceOp op, const T* __restrict values, int n, T* __restrict lanes) {
  for (int j = 0; j < kLanes; ++j) lanes[j] = T(0);
  for (int i = 0; i < n; i += kLanes) {
    if (op == ReduceOp::kMax) {
      for (int j = 0; j < kLanes; ++j) lanes[j] = math::max(lanes[j], values[i + j]);
    } else {
      for (int j = 0; j < kLanes; ++j) lanes[j] += values[i + j];
    }
  }
}

// Elements [begin, begin + n) into the 64 totals of a range, which meet once: a chain of 64 dependent additions takes longer
// than reading a tile.
template <class Rule, class T>
static inline void reduce_tile(MeasureTile<Rule, T>& tile, ReduceOp op, int k, int64_t begin, int n,
                               double* __restrict totals) {
  alignas(64) T values[kTile], lanes[kLanes];
  const auto streams = tile.open(begin, n);
  const int whole = n - n % kLanes;
  int filled = 0;
  if constexpr (measures_vectors<Rule, T>()) {
    if (k < reduction_count<Rule>()) {
      filled = whole;
      if (op == ReduceOp::kMax) {
        combine_tile<ReduceOp::kMax>(tile, streams, whole, lanes);
      } else {
        combine_tile<ReduceOp::kSum>(tile, streams, whole, lanes);
      }
    }
  }
  if (filled < n) tile.fill(streams, begin, filled, n, values);
  if (whole > 0) {
    if (filled == 0) combine_values(op, values, whole, lanes);
    combine_all(op, lanes, kLanes, totals);
  }
  combine_all(op, values + (whole - filled), n - whole, totals);
}

// Zeros, without a call or a string instruction, which would take longer than a short row.
static inline void clear_lanes(double* totals) {
#pragma GCC unroll 64
  for (int j = 0; j < kLanes; j += kVector / 2) store(totals + j, HalfDoubles{});
}

static inline double total_of_lanes(ReduceOp op, double* totals) {
  constexpr int kLast = 8, kWide = kVector / 2;
  if (op == ReduceOp::kMax) {
    for (int i = kLast; i < kLanes; ++i) totals[i % kLast] = math::max(totals[i % kLast], totals[i]);
  } else {
    for (int j = 0; j < kLast; j += kWide) {
      auto sum = load<HalfDoubles>(totals + j);
#pragma GCC unroll 8
      for (int i = kLast; i < kLanes; i += kLast) sum += load<HalfDoubles>(totals + i + j);
      store(totals + j, sum);
    }
  }
  double total = 0;
  for (int j = 0; j < kLast; ++j) total = combine(op, total, totals[j]);
  return total;
}

// `count` ranges of `length` elements, one after another from `begin` on: rows, or one range of a tensor.
template <class Rule, class T>
static void reduce_typed(const Task& task, int k, int64_t begin, int64_t length, int64_t count, double* out) {
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  const ReduceOp op = reduce_op<Rule>(k, task.common->hypers);
  MeasureTile<Rule, T> tile(task, prepared, k);
  for (int64_t range = 0; range < count; ++range, begin += length) {
    alignas(64) double totals[kLanes];
    clear_lanes(totals);
    for (int64_t i = 0; i < length; i += kTile) {
      reduce_tile<Rule, T>(tile, op, k, begin + i, int(length - i < kTile ? length - i : kTile), totals);
    }
    out[range] = total_of_lanes(op, totals);
  }
}

// Columns add in the arithmetic type over as many rows as a lane of a tile has terms.
template <class Rule, class T>
static void reduce_columns_typed(const Task& task, int k, int64_t row_begin, int64_t row_end, int64_t begin, int64_t end,
                                 double* totals) {
  constexpr int kRows = kTile / kLanes;
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  const ReduceOp op = reduce_op<Rule>(k, task.common->hypers);
  MeasureTile<Rule, T> tile(task, prepared, k);
  alignas(64) T values[kTile], sums[kTile];
  for (int64_t c = 0; c < end - begin; ++c) totals[c] = 0;
  for (int64_t first = row_begin; first < row_end; first += kRows) {
    const int64_t last = row_end - first < kRows ? row_end : first + kRows;
    for (int64_t c = begin; c < end; c += kTile) {
      const int n = int(end - c < kTile ? end - c : kTile);
      std::fill_n(sums, n, T(0));
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * task.tensor->cols + c;
        const auto streams = tile.open(at, n);
        int whole = 0;
        if constexpr (measures_vectors<Rule, T>()) {
          whole = n - n % kVector;
          for_reads(tile, [&](auto param, auto any_state) {
            for (int i = 0; i < whole; i += kVector) {
              const Floats value = tile.template vector<param, any_state>(streams, i), sum = load<Floats>(sums + i);
              store(sums + i, op == ReduceOp::kMax ? combine_vectors<ReduceOp::kMax>(sum, value)
                                                   : combine_vectors<ReduceOp::kSum>(sum, value));
            }
          });
        }
        if (whole == n) continue;
        tile.fill(streams, at, whole, n, values);
        for (int i = whole; i < n; ++i) {
          const T value = values[i - whole];
          sums[i] = op == ReduceOp::kMax ? math::max(sums[i], value) : sums[i] + value;
        }
      }
      combine_all(op, sums, n, totals + (c - begin));
    }
  }
}

template <class Rule>
static void reduce_task(const Task& task, int k, int64_t begin, int64_t length, int64_t count, double* out) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    reduce_typed<Rule, double>(task, k, begin, length, count, out);
  } else {
    reduce_typed<Rule, float>(task, k, begin, length, count, out);
  }
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
