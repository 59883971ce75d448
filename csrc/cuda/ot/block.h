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
  double* rise;       // of rows: by how much the last sweep raised them; of columns: see `shortage_of`
  double* next_sum;   // [kTried][size] at points along the direction; before, log2 of what entries are compared with
  double* value;      // [capacity][size]: the sparse plan, by lines
  int* index;         // [capacity][size]
  int* count;         // [size]
  int size;
};

inline constexpr int kTried = momentum::ot::kLengths - 1;  // step lengths in one read, once the first is refused
inline constexpr int kSideVectors = 6 + kTried;
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
  __device__ double shortage() { return math::max(shortage_of(rows.rise), shortage_of(rows.potential)); }
  __device__ double value() const;
  __device__ void potentials(double* f, double* g) const;

 private:
  using T = typename Costs::Type;

  struct Direction {
    double linear, slope, growth, error_before;
  };

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
  // Such sums at several points along the direction, in one read of the line.
  template <bool kByRows, int kCount>
  __device__ void line_sums(int line, const Side& side, const Side& others, const double (&alpha)[kCount],
                            double (&sums)[kCount]) const {
    const double own = side.potential[line], own_step = momentum::ot::kLog2e * side.step[line];
    for (int l = 0; l < others.size; ++l) {
      const double other = others.potential[l], step = momentum::ot::kLog2e * others.step[l];
      const double c = k * cost_of<kByRows>(line, l);
      MOMENTUM_UNROLL
      for (int q = 0; q < kCount; ++q) sums[q] += power<T>(((other + alpha[q] * step) + (own + alpha[q] * own_step)) - c);
    }
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
  __device__ double shortage_of(const double* order);
  template <int kCount>
  __device__ bool try_lengths(int first, const Direction& direction, momentum::ot::Step& step);
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

}  // namespace momentum::cuda::ot
