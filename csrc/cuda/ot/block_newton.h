// One problem in one block: the sparse Newton step.
#pragma once

#include <type_traits>

#include "cuda/ot/block.h"

namespace momentum::cuda::ot {

// Whether some line has more entries than there is room for. `next_sum` holds log2 of what an entry is compared with.
template <class Costs>
template <bool kByRows>
__device__ bool BlockMachine<Costs>::overflows(const Side& side, const Side& other, double log2_theta) const {
  double longest = 0;
  for_lines(side, [&](int line) {
    int count = 0;
    for (int l = 0; l < other.size; ++l) {
      const double exponent = (other.potential[l] + side.potential[line]) - k * cost_of<kByRows>(line, l);
      const double bound = side.next_sum[line] < other.next_sum[l] ? side.next_sum[line] : other.next_sum[l];
      count += exponent >= bound + log2_theta ? 1 : 0;
    }
    longest = double(count) > longest ? double(count) : longest;
  });
  return block_max(longest, meeting) > double(capacity);
}

template <class Costs>
template <bool kByRows>
__device__ void BlockMachine<Costs>::emit(Side& side, const Side& other, double log2_theta) {
  for_lines(side, [&](int line) {
    int count = 0;
    for (int l = 0; l < other.size; ++l) {
      const double exponent = (other.potential[l] + side.potential[line]) - k * cost_of<kByRows>(line, l);
      const double bound = side.next_sum[line] < other.next_sum[l] ? side.next_sum[line] : other.next_sum[l];
      if (exponent >= bound + log2_theta) {
        const int64_t at = int64_t(count) * side.size + line;
        side.index[at] = l;
        side.value[at] = power<T>(exponent);
        ++count;
      }
    }
    side.count[line] = count;
  });
}

// (diag(outer) - S diag(1 / inner) S^T) d = rhs by conjugate gradients; see cpu/ot/system.isa.cpp.
template <class Costs>
__device__ int BlockMachine<Costs>::solve(Side& outer, Side& inner, double tolerance) {
  const int stride = outer.size > inner.size ? outer.size : inner.size;
  double* inverse = workspace;
  double* residual = inverse + stride;
  double* p = residual + stride;
  double* q = p + stride;
  double* middle = q + stride;
  double* d = outer.step;

  for_lines(inner, [&](int j) { inner.step[j] = inner.sum[j] > 0 ? (inner.marginal[j] - inner.sum[j]) / inner.sum[j] : 0; });
  __syncthreads();
  const double kept = total(outer, [&](int i) {
    double diagonal = outer.sum[i], line = 0;
    for (int e = 0; e < outer.count[i]; ++e) {
      const int64_t at = int64_t(e) * outer.size + i;
      diagonal -= outer.value[at] * outer.value[at] / inner.sum[outer.index[at]];
      line += outer.value[at];
    }
    const double least = 1e-8 * outer.sum[i];
    inverse[i] = outer.sum[i] > 0 ? 1 / (diagonal > least ? diagonal : least) : 0;
    residual[i] = outer.marginal[i] - outer.sum[i] - multiply(outer, i, inner.step);
    d[i] = 0;
    return line;
  });
  // With nothing dropped the matrix is singular, its null vector constant over the lines that have mass.
  const bool project = mass - kept < 1e-13 * mass;
  const double present = total(outer, [&](int i) { return outer.sum[i] > 0 ? 1.0 : 0.0; });
  const auto subtract_mean = [&] {
    const double mean = total(outer, [&](int i) { return residual[i]; }) / present;
    for_lines(outer, [&](int i) { residual[i] -= outer.sum[i] > 0 ? mean : 0; });
  };
  if (project) subtract_mean();
  double rz = total(outer, [&](int i) {
    p[i] = inverse[i] * residual[i];
    return p[i] * residual[i];
  });
  double rr = total(outer, [&](int i) { return residual[i] * residual[i]; });
  const double enough = tolerance * tolerance * rr;
  int steps = 0;
  while (steps < kCgSteps && rr > enough) {
    for_lines(inner, [&](int j) { middle[j] = inner.sum[j] > 0 ? multiply(inner, j, p) / inner.sum[j] : 0; });
    __syncthreads();
    const double curvature = total(outer, [&](int i) {
      q[i] = outer.sum[i] * p[i] - multiply(outer, i, middle);
      return p[i] * q[i];
    });
    if (!(curvature > 0)) break;
    const double alpha = rz / curvature;
    for_lines(outer, [&](int i) {
      d[i] += alpha * p[i];
      residual[i] -= alpha * q[i];
    });
    if (project) subtract_mean();
    const double next = total(outer, [&](int i) { return inverse[i] * residual[i] * residual[i]; });
    rr = total(outer, [&](int i) { return residual[i] * residual[i]; });
    const double beta = next / rz;
    for_lines(outer, [&](int i) { p[i] = inverse[i] * residual[i] + beta * p[i]; });
    __syncthreads();
    rz = next;
    ++steps;
  }
  for_lines(inner, [&](int j) { inner.step[j] -= inner.sum[j] > 0 ? multiply(inner, j, d) / inner.sum[j] : 0; });
  __syncthreads();
  return steps;
}

// Evaluates kCount lengths of the search from the one numbered `first`, and takes the longest that may be taken, if any.
template <class Costs>
template <int kCount>
__device__ bool BlockMachine<Costs>::try_lengths(int first, const Direction& direction, momentum::ot::Step& step) {
  double alpha[kCount];
  MOMENTUM_UNROLL
  for (int q = 0; q < kCount; ++q) alpha[q] = momentum::ot::step_length(first + q, direction.growth);
  const auto evaluate = [&](auto by_rows, const Side& side, const Side& others) {
    for_lines(side, [&](int line) {
      double sums[kCount] = {};
      if (side.marginal[line] > 0) line_sums<decltype(by_rows)::value, kCount>(line, side, others, alpha, sums);
      MOMENTUM_UNROLL
      for (int q = 0; q < kCount; ++q) side.next_sum[q * side.size + line] = sums[q];
    });
  };
  evaluate(std::true_type{}, rows, columns);
  evaluate(std::false_type{}, columns, rows);
  __syncthreads();
  ++step.reads;
  step.points += kCount;
  for (int q = 0; q < kCount; ++q) {
    const double length = momentum::ot::step_length(first + q, direction.growth);  // an array would be in local memory
    const double *r = rows.next_sum + q * rows.size, *c = columns.next_sum + q * columns.size;
    const double after = total(rows, [&](int i) { return math::abs(r[i] - rows.marginal[i]); }) +
                         total(columns, [&](int j) { return math::abs(c[j] - columns.marginal[j]); });
    const double gained = total(rows, [&](int i) { return r[i] - rows.sum[i]; });
    if (!momentum::ot::accepts(length, direction.slope, length * direction.linear - gained, direction.error_before, after,
                               mass)) {
      continue;
    }
    const auto take = [&](const Side& side, const double* sum) {
      for_lines(side, [&](int l) {
        side.potential[l] += length * (momentum::ot::kLog2e * side.step[l]);
        side.sum[l] = sum[l];
      });
    };
    take(rows, r);
    take(columns, c);
    __syncthreads();
    step.error = after;
    return true;
  }
  return false;
}

template <class Costs>
__device__ momentum::ot::Step BlockMachine<Costs>::newton(double theta, double tolerance, bool may_accept) {
  momentum::ot::Step step;
  const double before = error();
  const auto bounds = [&](const Side& side, const Side& other) {
    for_lines(side, [&](int line) {
      side.next_sum[line] = side.sum[line] > 0 ? ::log2(side.sum[line] / double(other.size)) : kHuge;
    });
  };
  bounds(rows, columns);
  bounds(columns, rows);
  __syncthreads();
  double log2_theta = ::log2(theta);
  while (overflows<true>(rows, columns, log2_theta) || overflows<false>(columns, rows, log2_theta)) log2_theta += 1;
  emit<true>(rows, columns, log2_theta);
  emit<false>(columns, rows, log2_theta);
  __syncthreads();
  step.kept = int64_t(total(rows, [&](int i) { return double(rows.count[i]); }));
  if (rows.size <= columns.size) {
    step.cg = solve(rows, columns, tolerance);
  } else {
    step.cg = solve(columns, rows, tolerance);
  }
  const auto dot = [&](const Side& side, const double* x) { return total(side, [&](int l) { return x[l] * side.step[l]; }); };
  const auto top = [&](const Side& side) {
    double largest = -kHuge;
    for_lines(side, [&](int l) {
      if (side.marginal[l] > 0) largest = math::max(largest, side.step[l]);
    });
    return block_max(largest, meeting);
  };
  Direction direction;
  direction.error_before = before;
  direction.linear = dot(rows, rows.marginal) + dot(columns, columns.marginal);
  direction.slope = direction.linear - dot(rows, rows.sum) - dot(columns, columns.sum);
  direction.growth = top(rows) + top(columns);
  if (!(direction.slope > 0) || !may_accept) return step;
  step.accepted = try_lengths<1>(0, direction, step) || try_lengths<kTried>(1, direction, step);
  return step;
}

template <class Costs>
__device__ double BlockMachine<Costs>::sweep_equivalents(const momentum::ot::Step& step) const {
  // Exponentials are what a sweep costs, read from cache in two walks; the lists' entries cost about as much as an exponential.
  const double entries = 2.0 * rows.size * columns.size;
  return step.points + 0.5 + double(step.cg) * (2.0 * double(step.kept) + 4.0 * (rows.size + columns.size)) / entries;
}

}  // namespace momentum::cuda::ot
