// Loops over one row of the cost, for one instruction set. Sums run over four vectors of lanes, added in a fixed order.
#include <cmath>
#include <limits>

#include "core/ot/problem.h"
#include "cpu/ot/exp2.h"
#include "cpu/ot/table.h"

namespace momentum::cpu::ot::MOMENTUM_ISA {
namespace {

constexpr int kUnroll = 4;

template <class Body>
MOMENTUM_INLINE auto with_type(Row row, Body&& body) {
  return row.is_double ? body(static_cast<const double*>(row.data)) : body(static_cast<const float*>(row.data));
}

template <class T>
MOMENTUM_INLINE double exponentials_of(const T* c, int64_t m, double k, double u, const double* v, double* p) {
  const Vector scale = splat(-k), offset = splat(u);
  Vector totals[kUnroll] = {};
  int64_t j = 0;
  for (; j + kUnroll * kLanes <= m; j += kUnroll * kLanes) {
#pragma GCC unroll 4
    for (int q = 0; q < kUnroll; ++q) {
      const int64_t at = j + q * kLanes;
      const Vector e = exp2((load(v + at) + offset) + scale * load(c + at));
      __builtin_prefetch(c + at + m);  // of the next row: hardware stops at the ends of pages
      store(p + at, e);
      totals[q] += e;
    }
  }
  for (; j + kLanes <= m; j += kLanes) {
    const Vector e = exp2((load(v + j) + offset) + scale * load(c + j));
    store(p + j, e);
    totals[0] += e;
  }
  if (j < m) {
    const int rest = int(m - j);
    const Vector e = exp2((load_tail(v + j, rest, -1e300) + offset) + scale * load_tail(c + j, rest, 0.0));
    store_tail(p + j, rest, e);
    totals[1] += e;
  }
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

template <int kCount, class T>
MOMENTUM_INLINE void sums_of(const T* c, int64_t m, double k, const double* u, const double* v, double* rows, double* columns) {
  const Vector scale = splat(-k);
  Vector totals[kCount] = {};
  int64_t j = 0;
  for (; j + kLanes <= m; j += kLanes) {
    const Vector cost = scale * load(c + j);
#pragma GCC unroll 4
    for (int q = 0; q < kCount; ++q) {
      const Vector e = exp2((load(v + q * m + j) + u[q]) + cost);
      store(columns + q * m + j, load(columns + q * m + j) + e);
      totals[q] += e;
    }
  }
  if (j < m) {
    const int rest = int(m - j);
    const Vector cost = scale * load_tail(c + j, rest, 0.0);
    for (int q = 0; q < kCount; ++q) {
      const Vector e = exp2((load_tail(v + q * m + j, rest, -1e300) + u[q]) + cost);
      store_tail(columns + q * m + j, rest, load_tail(columns + q * m + j, rest, 0.0) + e);
      totals[q] += e;
    }
  }
  for (int q = 0; q < kCount; ++q) rows[q] = sum(totals[q]);
}

template <class T>
MOMENTUM_INLINE double maximum_of(const T* c, int64_t m, double k, const double* v) {
  const Vector scale = splat(-k);
  Vector best = splat(-std::numeric_limits<double>::infinity());
  int64_t j = 0;
  for (; j + kLanes <= m; j += kLanes) best = maximum(load(v + j) + scale * load(c + j), best);
  if (j < m) {
    const int rest = int(m - j);
    const double none = -std::numeric_limits<double>::infinity();
    best = maximum(load_tail(v + j, rest, none) + scale * load_tail(c + j, rest, 0.0), best);
  }
  double result = best[0];
  for (int i = 1; i < kLanes; ++i) result = best[i] > result ? best[i] : result;
  return result;
}

// The comparison is done on exponents, so that only what is kept is exponentiated.
template <class T>
MOMENTUM_INLINE int64_t emit_of(const T* c, int64_t m, double k, double u, const double* v, double log2_theta, double log2_row,
                                const double* log2_column, int32_t* index, double* value) {
  const Vector scale = splat(-k), offset = splat(u), row = splat(log2_row);
  int64_t count = 0;
  const auto take = [&](int64_t j, int lanes, Vector exponent, Vector column) __attribute__((always_inline)) {
    const Vector bound = (row < column ? row : column) + log2_theta;
    const Bits keep = exponent >= bound;
    double lane[kLanes];
    store(lane, exponent);
    for (int i = 0; i < lanes; ++i) {
      index[count] = int32_t(j + i);
      value[count] = lane[i];
      count -= keep[i];
    }
  };
  int64_t j = 0;
  for (; j + kLanes <= m; j += kLanes) {
    const Vector exponent = (load(v + j) + offset) + scale * load(c + j);
    const Vector column = load(log2_column + j);
    const Bits keep = exponent >= (row < column ? row : column) + log2_theta;
    int64_t any = 0;
    for (int i = 0; i < kLanes; ++i) any |= keep[i];
    if (any != 0) take(j, kLanes, exponent, column);
  }
  if (j < m) {
    const int rest = int(m - j);
    take(j, rest, (load_tail(v + j, rest, 0.0) + offset) + scale * load_tail(c + j, rest, 0.0),
         load_tail(log2_column + j, rest, 0.0));
  }
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(value + i, exp2(load(value + i)));
  if (i < count) store_tail(value + i, int(count - i), exp2(load_tail(value + i, int(count - i), 0.0)));
  return count;
}

double exponentials(Row row, int64_t m, double k, double u, const double* v, double* p) {
  return with_type(row, [&](const auto* c) __attribute__((always_inline)) { return exponentials_of(c, m, k, u, v, p); });
}

void sums(Row row, int64_t m, double k, int count, const double* u, const double* v, double* rows, double* columns) {
  with_type(row, [&](const auto* c) __attribute__((always_inline)) {
    if (count == 1) return sums_of<1>(c, m, k, u, v, rows, columns);
    return sums_of<momentum::ot::kLengths - 1>(c, m, k, u, v, rows, columns);
  });
}

double maximum_row(Row row, int64_t m, double k, const double* v) {
  return with_type(row, [&](const auto* c) __attribute__((always_inline)) { return maximum_of(c, m, k, v); });
}

int64_t emit(Row row, int64_t m, double k, double u, const double* v, double log2_theta, double log2_row,
             const double* log2_column, int32_t* index, double* value) {
  return with_type(row, [&](const auto* c) __attribute__((always_inline)) {
    return emit_of(c, m, k, u, v, log2_theta, log2_row, log2_column, index, value);
  });
}

RowScan scan(Row row, int64_t m, const double* v) {
  return with_type(row, [&](const auto* c) __attribute__((always_inline)) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    RowScan result{kInf, -kInf, false, false};
    for (int64_t j = 0; j < m; ++j) {
      const double x = double(c[j]);
      const bool counts = v[j] > -kInf, finite = counts && x > -kInf && x < kInf;
      result.invalid |= counts && !(x > -kInf);
      result.forbidden |= counts && x == kInf;
      result.low = finite && x < result.low ? x : result.low;
      result.high = finite && x > result.high ? x : result.high;
    }
    return result;
  });
}

void add(int64_t m, int64_t count, const double* scale, const double* __restrict p, double* __restrict out) {
  if (count == kTogether) {
    for (int64_t j = 0; j < m; ++j) {
      double sum = out[j];
#pragma GCC unroll 4
      for (int64_t q = 0; q < kTogether; ++q) sum += scale[q] * p[q * m + j];
      out[j] = sum;
    }
    return;
  }
  for (int64_t q = 0; q < count; ++q) {
    for (int64_t j = 0; j < m; ++j) out[j] += scale[q] * p[q * m + j];
  }
}

void distances(const double* x, const double* y, int64_t m, int64_t d, bool root, double* __restrict out) {
  for (int64_t j = 0; j < m; ++j) out[j] = 0;
  for (int64_t t = 0; t < d; ++t) {
    const double* __restrict coordinate = y + t * m;
    const double at = x[t];
    for (int64_t j = 0; j < m; ++j) out[j] += (at - coordinate[j]) * (at - coordinate[j]);
  }
  if (root) {
    for (int64_t j = 0; j < m; ++j) out[j] = __builtin_sqrt(out[j]);
  }
}

}  // namespace

const Kernels& table() {
  static constexpr Kernels all = {exponentials, sums, maximum_row, add, emit, scan, distances, multiply, solve};
  return all;
}

}  // namespace momentum::cpu::ot::MOMENTUM_ISA
