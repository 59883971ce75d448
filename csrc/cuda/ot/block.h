// One transport problem in one block: the arithmetic behind core/ot/solver.h, from the first sweep to the last Newton step
// without leaving the kernel.
//
// A thread owns lines, rows and columns alike: line k belongs to thread k mod blockDim. It adds up its line by itself, in
// order, so a sum depends on nothing but the problem, and threads meet only where a scalar is needed. Each sweep walks the cost
// twice, by rows and by columns; a problem of 256 x 256 floats stays in the caches of the multiprocessor. The sparse plan is
// kept twice too, as lists by rows and by columns, entry k of all lines beside each other.
#pragma once

#include "core/math.h"
#include "core/ot/solver.h"
#include "cuda/ot/costs.h"
#include "cuda/ot/reduce.h"

namespace momentum::cuda::ot {

inline constexpr int kMaxThreads = 256;

// The vectors of one side of a problem, rows or columns.
struct Side {
  double* marginal;
  double* log2_marginal;
  double* potential;  // base-2 exponents
  double* sum;        // of the plan at these potentials
  double* step;       // of a Newton direction, natural logarithms
  double* next_potential;
  double* next_sum;
  double* value;  // [capacity][size]: the sparse plan, by lines
  int* index;     // [capacity][size]
  int* count;     // [size]
  int size;
};

inline constexpr int kSideVectors = 7;
inline constexpr int kSolverVectors = 5;

template <class Costs>
class BlockMachine {
 public:
  Costs cost;
  Side rows, columns;
  double* workspace;  // [kSolverVectors][max(n, m)]
  double* meeting;    // shared
  int capacity;       // entries of a line of the sparse plan
  double reg, k = 0, mass = 0, cost_min = 0;
  bool fresh = true;

  __device__ momentum::ot::Scan scan();
  __device__ void start(double temperature);
  __device__ void set_temperature(double temperature);
  __device__ double sweep();
  __device__ momentum::ot::Step newton(double theta, double tolerance, bool may_accept);
  __device__ double sweep_equivalents(const momentum::ot::Step& step) const;
  __device__ double rounding() const;
  __device__ double verify();
  __device__ double value() const;
  __device__ void potentials(double* f, double* g) const;

 private:
  using T = typename Costs::Type;

  template <class Body>
  __device__ static void for_lines(const Side& side, Body&& body) {
    for (int line = threadIdx.x; line < side.size; line += blockDim.x) body(line);
  }
  template <class Term>
  __device__ double total(const Side& side, Term&& term) const {
    double sum = 0;
    for_lines(side, [&](int line) { sum += term(line); });
    return block_sum(sum, meeting);
  }
  template <bool kByRows>
  __device__ double cost_of(int line, int other) const {
    return kByRows ? cost(line, other) : cost(other, line);
  }
  // The sum of a line of the plan 2^(own + other_l - k C), and its logarithm from the largest term.
  template <bool kByRows>
  __device__ double line_sum(int line, double own, const double* other, int size) const {
    double sum = 0;
    for (int l = 0; l < size; ++l) sum += power<T>((other[l] + own) - k * cost_of<kByRows>(line, l));
    return sum;
  }
  template <bool kByRows>
  __device__ double log2_line_sum(int line, const double* other, int size) const {
    double top = -kHuge;
    for (int l = 0; l < size; ++l) {
      const double exponent = other[l] - k * cost_of<kByRows>(line, l);
      top = exponent > top ? exponent : top;
    }
    return top + ::log2(line_sum<kByRows>(line, -top, other, size));
  }
  template <bool kByRows>
  __device__ void emit(Side& side, const Side& other, double log2_theta);
  template <bool kByRows>
  __device__ bool overflows(const Side& side, const Side& other, double log2_theta) const;
  __device__ double evaluate(bool next);
  __device__ double multiply(const Side& side, int line, const double* x) const {
    double sum = 0;
    for (int e = 0; e < side.count[line]; ++e) {
      const int64_t at = int64_t(e) * side.size + line;
      sum += side.value[at] * x[side.index[at]];
    }
    return sum;
  }
  __device__ int solve(Side& outer, Side& inner, double tolerance);
  __device__ double error() const {
    return total(rows, [&](int i) { return math::abs(rows.sum[i] - rows.marginal[i]); }) +
           total(columns, [&](int j) { return math::abs(columns.sum[j] - columns.marginal[j]); });
  }
};

template <class Costs>
__device__ momentum::ot::Scan BlockMachine<Costs>::scan() {
  momentum::ot::Scan result;
  const auto wrong = [](double x) { return !(x >= 0 && x < kHuge) ? 1.0 : 0.0; };
  mass = result.mass = total(rows, [&](int i) { return rows.marginal[i]; });
  const double mass_b = total(columns, [&](int j) { return columns.marginal[j]; });
  const double bad = total(rows, [&](int i) { return wrong(rows.marginal[i]); }) +
                     total(columns, [&](int j) { return wrong(columns.marginal[j]); });
  // Marginals that were normalised in float32 differ by about its rounding.
  result.invalid = bad > 0 || !(math::abs(mass - mass_b) <= 1e-5 * mass);
  if (result.invalid || mass == 0) return result;
  for_lines(columns, [&](int j) {
    columns.marginal[j] *= mass / mass_b;
    columns.log2_marginal[j] = ::log2(columns.marginal[j]);
  });
  for_lines(rows, [&](int i) { rows.log2_marginal[i] = ::log2(rows.marginal[i]); });
  __syncthreads();
  double low = kHuge, high = -kHuge, invalid = 0, unreached = 0;
  for_lines(rows, [&](int i) {
    if (!(rows.marginal[i] > 0)) return;
    bool reached = false;
    for (int j = 0; j < columns.size; ++j) {
      const double c = cost(i, j);
      const bool counts = columns.marginal[j] > 0, finite = counts && c > -kHuge && c < kHuge;
      if (counts && !(c > -kHuge)) invalid = 1;
      if (finite) {
        low = c < low ? c : low;
        high = c > high ? c : high;
        reached = true;
      }
    }
    if (!reached) unreached = 1;
  });
  for_lines(columns, [&](int j) {
    if (!(columns.marginal[j] > 0)) return;
    bool reached = false;
    for (int i = 0; i < rows.size && !reached; ++i) reached = rows.marginal[i] > 0 && cost(i, j) < kHuge;
    if (!reached) unreached = 1;
  });
  cost_min = result.cost_min = -block_max(-low, meeting);
  result.cost_max = block_max(high, meeting);
  result.invalid = block_max(invalid, meeting) > 0;
  result.infeasible = block_max(unreached, meeting) > 0;
  return result;
}

template <class Costs>
__device__ void BlockMachine<Costs>::start(double temperature) {
  k = temperature;
  fresh = true;
  for_lines(rows, [&](int i) { rows.potential[i] = rows.log2_marginal[i] + 0.5 * k * cost_min; });
  for_lines(columns, [&](int j) { columns.potential[j] = columns.log2_marginal[j] + 0.5 * k * cost_min; });
  __syncthreads();
}

template <class Costs>
__device__ void BlockMachine<Costs>::set_temperature(double temperature) {
  const double factor = temperature / k;
  k = temperature;
  fresh = true;
  const auto carry = [&](const Side& side) {
    for_lines(side, [&](int line) {
      if (side.marginal[line] > 0) {
        side.potential[line] = momentum::ot::rescale(side.potential[line], side.log2_marginal[line], factor);
      }
    });
  };
  carry(rows);
  carry(columns);
  __syncthreads();
}

template <class Costs>
__device__ double BlockMachine<Costs>::sweep() {
  if (!fresh) {
    for_lines(columns, [&](int j) {
      if (!(columns.marginal[j] > 0)) return;
      const double sum = columns.sum[j];
      if (sum > kSmallestSum && sum < kLargestSum) {
        columns.potential[j] += ::log2(columns.marginal[j] / sum);
      } else {
        columns.potential[j] = columns.log2_marginal[j] - log2_line_sum<false>(j, rows.potential, rows.size);
      }
    });
    __syncthreads();
  }
  for_lines(rows, [&](int i) {
    rows.sum[i] = rows.marginal[i];
    if (!(rows.marginal[i] > 0)) return;
    const double sum = line_sum<true>(i, rows.potential[i], columns.potential, columns.size);
    if (sum > kSmallestSum && sum < kLargestSum) {
      rows.potential[i] += ::log2(rows.marginal[i] / sum);
    } else {
      rows.potential[i] = rows.log2_marginal[i] - log2_line_sum<true>(i, columns.potential, columns.size);
    }
  });
  __syncthreads();
  fresh = false;
  return total(columns, [&](int j) {
    columns.sum[j] = columns.marginal[j] > 0 ? line_sum<false>(j, columns.potential[j], rows.potential, rows.size) : 0;
    return math::abs(columns.sum[j] - columns.marginal[j]);
  });
}

// Sums of the plan and the error, at the current potentials or at the next ones.
template <class Costs>
__device__ double BlockMachine<Costs>::evaluate(bool next) {
  const double* u = next ? rows.next_potential : rows.potential;
  const double* v = next ? columns.next_potential : columns.potential;
  double* r = next ? rows.next_sum : rows.sum;
  double* c = next ? columns.next_sum : columns.sum;
  const double error_rows = total(rows, [&](int i) {
    r[i] = rows.marginal[i] > 0 ? line_sum<true>(i, u[i], v, columns.size) : 0;
    return math::abs(r[i] - rows.marginal[i]);
  });
  const double error_columns = total(columns, [&](int j) {
    c[j] = columns.marginal[j] > 0 ? line_sum<false>(j, v[j], u, rows.size) : 0;
    return math::abs(c[j] - columns.marginal[j]);
  });
  return error_rows + error_columns;
}

template <class Costs>
__device__ double BlockMachine<Costs>::verify() {
  fresh = false;
  return evaluate(false);
}

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
  const auto rise = [&](const Side& side) { return total(side, [&](int l) { return side.marginal[l] * side.step[l]; }); };
  const auto fall = [&](const Side& side) { return total(side, [&](int l) { return side.sum[l] * side.step[l]; }); };
  const double linear = rise(rows) + rise(columns);
  const double slope = linear - fall(rows) - fall(columns);
  if (!(slope > 0) || !may_accept) return step;
  for (double alpha = 1; alpha > 0.005; alpha *= 0.5) {
    const auto move = [&](const Side& side) {
      for_lines(side, [&](int l) { side.next_potential[l] = side.potential[l] + alpha * momentum::ot::kLog2e * side.step[l]; });
    };
    move(rows);
    move(columns);
    __syncthreads();
    const double after = evaluate(true);
    ++step.evaluations;
    const double growth = total(rows, [&](int i) { return rows.next_sum[i] - rows.sum[i]; });
    if (!momentum::ot::accepts(alpha, slope, alpha * linear - growth, before, after, mass)) continue;
    const auto take = [&](const Side& side) {
      for_lines(side, [&](int l) {
        side.potential[l] = side.next_potential[l];
        side.sum[l] = side.next_sum[l];
      });
    };
    take(rows);
    take(columns);
    __syncthreads();
    step.accepted = true;
    step.error = after;
    return step;
  }
  return step;
}

template <class Costs>
__device__ double BlockMachine<Costs>::sweep_equivalents(const momentum::ot::Step& step) const {
  // A read with exponentials is two walks here; the lists' entries cost about as much as an exponential.
  const double entries = 2.0 * rows.size * columns.size;
  return step.evaluations + 0.5 + double(step.cg) * (2.0 * double(step.kept) + 4.0 * (rows.size + columns.size)) / entries;
}

template <class Costs>
__device__ double BlockMachine<Costs>::rounding() const {
  const auto largest = [&](const Side& side) {
    double best = 0;
    for_lines(side, [&](int l) {
      const double magnitude = side.marginal[l] > 0 ? math::abs(side.potential[l]) : 0;
      best = magnitude > best ? magnitude : best;
    });
    return block_max(best, meeting);
  };
  // Exponentials in float are themselves off by 2^-24 or so, each in its own direction.
  const double exponential = sizeof(T) == 4 ? 0x1p-27 : 0;
  return (exponential + 0x1p-54 * (largest(rows) + largest(columns))) * mass;
}

template <class Costs>
__device__ double BlockMachine<Costs>::value() const {
  const auto part = [&](const Side& side) {
    return total(side, [&](int l) {
      const double x = side.marginal[l];
      return x > 0 ? momentum::ot::kLn2 * x * (side.potential[l] - side.log2_marginal[l]) : 0.0;
    });
  };
  return reg * (mass - total(rows, [&](int i) { return rows.sum[i]; }) + part(rows) + part(columns));
}

template <class Costs>
__device__ void BlockMachine<Costs>::potentials(double* f, double* g) const {
  const double unit = reg * momentum::ot::kLn2;
  const auto scaled = [&](const Side& side, int l) {
    return side.marginal[l] > 0 ? unit * (side.potential[l] - side.log2_marginal[l]) : 0.0;
  };
  const double difference = total(rows, [&](int i) { return rows.marginal[i] * scaled(rows, i); }) -
                            total(columns, [&](int j) { return columns.marginal[j] * scaled(columns, j); });
  const double shift = difference / (2 * mass);
  for_lines(rows, [&](int i) { f[i] = rows.marginal[i] > 0 ? scaled(rows, i) - shift : 0; });
  for_lines(columns, [&](int j) { g[j] = columns.marginal[j] > 0 ? scaled(columns, j) + shift : 0; });
}

}  // namespace momentum::cuda::ot
