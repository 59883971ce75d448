// The Newton direction on the whole GPU: conjugate gradients on the smaller side's unknowns, three kernels a step, and the
// choice of the step's length; see cpu/ot/system.isa.cpp for the system. Kernels tell each other through `numbers` whether to
// go on: those after the last step return at once, and the host waits for none. Eight threads take a line of the sparse plan,
// in an order of its own; parts of sums are added by the block that comes last, in order, so no schedule changes a bit.
#pragma once

#include "cuda/ot/grid.h"

namespace momentum::cuda::ot {

inline constexpr int kTeam = 8;                     // threads of a line
inline constexpr int kBlockLines = kBlock / kTeam;  // lines of a block

// The vectors of the iteration, over the smaller side (`outer`), and one over the larger.
struct System {
  Lines outer, inner;
  double *inverse, *residual, *z, *p, *q, *middle;
};

__device__ __forceinline__ System system_of(const Grid& grid) {
  System system;
  const bool by_rows = grid.rows.size <= grid.columns.size;
  system.outer = by_rows ? grid.rows : grid.columns;
  system.inner = by_rows ? grid.columns : grid.rows;
  double* free = grid.workspace;
  for (double** vector : {&system.inverse, &system.residual, &system.z, &system.p, &system.q, &system.middle}) {
    *vector = free;
    free += system.inner.size;
  }
  return system;
}

__device__ __forceinline__ int own_line() { return int(blockIdx.x) * kBlockLines + int(threadIdx.x) / kTeam; }

__device__ __forceinline__ double team_sum(double x) {
  for (int offset = kTeam / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// The sum of term(value, index) over the entries of a line, in all threads of its team.
template <class Term>
__device__ __forceinline__ double line_sum(const Lines& side, int line, Term&& term) {
  double sum = 0;
  if (line < side.size) {
    for (int64_t e = side.begin[line] + threadIdx.x % kTeam; e < side.begin[line + 1]; e += kTeam) {
      sum += term(side.value[e], side.index[e]);
    }
  }
  return team_sum(sum);
}

__device__ __forceinline__ double lack(const Lines& side, int line) {
  return side.sum[line] > 0 ? (side.marginal[line] - side.sum[line]) / side.sum[line] : 0;
}

__device__ __forceinline__ bool overflowed(const Grid& grid) { return grid.numbers[kKept] > double(grid.capacity); }

// Right-hand side and diagonal, by lines of the smaller side.
__global__ void __launch_bounds__(kBlock) system_kernel(const Grid __grid_constant__ grid) {
  const System s = system_of(grid);
  const int line = own_line();
  const bool own = line < s.outer.size && threadIdx.x % kTeam == 0;
  if (overflowed(grid)) {
    if (own) s.outer.step[line] = 0;
    if (blockIdx.x == 0 && threadIdx.x == 0) grid.numbers[kActive] = grid.numbers[kCg] = 0;
    return;
  }
  const double product = line_sum(s.outer, line, [&](double value, int j) { return value * lack(s.inner, j); });
  const double eliminated = line_sum(s.outer, line, [&](double value, int j) { return value * value / s.inner.sum[j]; });
  const double kept_mass = line_sum(s.outer, line, [](double value, int) { return value; });
  double terms[3] = {};  // mass of the sparse plan, lines with mass, the residual
  if (own) {
    const double sum = s.outer.sum[line], diagonal = sum - eliminated, least = 1e-8 * sum;
    const double residual = s.outer.marginal[line] - sum - product;
    s.inverse[line] = sum > 0 ? 1 / (diagonal > least ? diagonal : least) : 0;
    s.residual[line] = residual;
    s.p[line] = 0;
    s.q[line] = 0;
    s.outer.step[line] = 0;
    terms[0] = kept_mass;
    terms[1] = sum > 0 ? 1 : 0;
    terms[2] = residual;
  }
  if (!complete<3>(grid, terms) || threadIdx.x != 0) return;
  const double mass = grid.numbers[kMass];
  const bool project = mass - terms[0] < 1e-13 * mass;
  grid.numbers[kProject] = project ? 1 : 0;
  grid.numbers[kPresent] = terms[1];
  grid.numbers[kMean] = project ? terms[2] / terms[1] : 0;
  grid.numbers[kAlpha] = grid.numbers[kBeta] = grid.numbers[kCg] = 0;
  grid.numbers[kActive] = 1;
}

// After a step along p, and before the first: the residual, without the part along the constants that rounding left in the one
// before it.
__global__ void __launch_bounds__(kBlock) residual_kernel(const Grid __grid_constant__ grid, bool first, double tolerance) {
  if (grid.numbers[kActive] == 0) return;
  const System s = system_of(grid);
  const double alpha = grid.numbers[kAlpha], mean = grid.numbers[kMean];
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  double terms[3] = {};
  if (i < s.outer.size) {
    const double residual = s.residual[i] - alpha * s.q[i] - (s.outer.sum[i] > 0 ? mean : 0);
    s.outer.step[i] += alpha * s.p[i];
    s.residual[i] = residual;
    s.z[i] = s.inverse[i] * residual;
    terms[0] = residual * s.z[i];
    terms[1] = residual * residual;
    terms[2] = residual;
  }
  if (!complete<3>(grid, terms) || threadIdx.x != 0) return;
  double* numbers = grid.numbers;
  if (first) numbers[kEnough] = tolerance * tolerance * terms[1];
  numbers[kBeta] = first ? 0 : terms[0] / numbers[kResidual];
  numbers[kResidual] = terms[0];
  numbers[kMean] = numbers[kProject] > 0 ? terms[2] / numbers[kPresent] : 0;
  numbers[kCg] += first ? 0 : 1;
  numbers[kActive] = terms[1] > numbers[kEnough] ? 1 : 0;
}

// S^T p over the larger side, with the next p = z + beta p.
__global__ void __launch_bounds__(kBlock) middle_kernel(const Grid __grid_constant__ grid) {
  if (grid.numbers[kActive] == 0) return;
  const System s = system_of(grid);
  const int line = own_line();
  const double beta = grid.numbers[kBeta];
  const double sum = line_sum(s.inner, line, [&](double value, int i) { return value * (s.z[i] + beta * s.p[i]); });
  if (line < s.inner.size && threadIdx.x % kTeam == 0) s.middle[line] = s.inner.sum[line] > 0 ? sum / s.inner.sum[line] : 0;
}

// That p, the matrix's product with it, and the step's length.
__global__ void __launch_bounds__(kBlock) curvature_kernel(const Grid __grid_constant__ grid) {
  if (grid.numbers[kActive] == 0) return;
  const System s = system_of(grid);
  const int line = own_line();
  const double beta = grid.numbers[kBeta];
  const double sum = line_sum(s.outer, line, [&](double value, int j) { return value * s.middle[j]; });
  double terms[1] = {};
  if (line < s.outer.size && threadIdx.x % kTeam == 0) {
    const double p = s.z[line] + beta * s.p[line], q = s.outer.sum[line] * p - sum;
    s.p[line] = p;
    s.q[line] = q;
    terms[0] = p * q;
  }
  if (!complete<1>(grid, terms) || threadIdx.x != 0) return;
  if (terms[0] > 0) {
    grid.numbers[kAlpha] = grid.numbers[kResidual] / terms[0];
  } else {
    grid.numbers[kActive] = 0;
  }
}

// The larger side's part of the direction, the slope of F along it, and by how much the largest exponent grows.
__global__ void __launch_bounds__(kBlock) direction_kernel(const Grid __grid_constant__ grid) {
  const System s = system_of(grid);
  const int line = own_line();
  const bool overflow = overflowed(grid);
  const double sum = overflow ? 0 : line_sum(s.inner, line, [&](double value, int i) { return value * s.outer.step[i]; });
  double terms[4] = {0, 0, -kHuge, -kHuge};
  if (threadIdx.x % kTeam == 0) {
    const auto add = [&](const Lines& side, double& top) {
      if (!(side.marginal[line] > 0)) return;
      terms[0] += side.marginal[line] * side.step[line];
      terms[1] += side.sum[line] * side.step[line];
      top = side.step[line];
    };
    if (line < s.inner.size) {
      s.inner.step[line] = overflow || !(s.inner.sum[line] > 0) ? 0 : lack(s.inner, line) - sum / s.inner.sum[line];
      add(s.inner, terms[2]);
    }
    if (line < s.outer.size) add(s.outer, terms[3]);
  }
  if (!complete<2>(grid, terms) || threadIdx.x != 0) return;
  grid.numbers[kLinear] = terms[0];
  grid.numbers[kSlope] = terms[0] - terms[1];
  grid.numbers[kGrowth] = terms[2] + terms[3];
}

// Takes the longest step that `accepts` allows, if any. One block.
__global__ void __launch_bounds__(kBlock, 1) choose_kernel(const Grid __grid_constant__ grid, bool may_accept) {
  __shared__ double meeting[33];
  const double slope = grid.numbers[kSlope], linear = grid.numbers[kLinear], mass = grid.numbers[kMass];
  const auto total = [&](const Lines& side, auto&& term) {
    double sum = 0;
    for_own(side.size, [&](int l) { sum += side.marginal[l] > 0 ? term(l) : 0; });
    return block_sum(sum, meeting);
  };
  const auto off = [&](const Lines& side, const double* sum) {
    return total(side, [&](int l) { return math::abs(sum[l] - side.marginal[l]); });
  };
  const double before = off(grid.rows, grid.rows.sum) + off(grid.columns, grid.columns.sum);
  bool accepted = false;
  MOMENTUM_UNROLL
  for (int a = 0; a < kLengths; ++a) {
    const double* r = grid.rows.next_sum + int64_t(a) * grid.rows.size;
    const double* c = grid.columns.next_sum + int64_t(a) * grid.columns.size;
    const double after = off(grid.rows, r) + off(grid.columns, c);
    const double gained = total(grid.rows, [&](int i) { return r[i] - grid.rows.sum[i]; });
    const double alpha = momentum::ot::step_length(a, grid.numbers[kGrowth]);
    if (accepted || !may_accept || !(slope > 0) ||
        !momentum::ot::accepts(alpha, slope, alpha * linear - gained, before, after, mass)) {
      continue;
    }
    accepted = true;
    const auto take = [&](const Lines& side, const double* sum) {
      for_own(side.size, [&](int l) {
        if (!(side.marginal[l] > 0)) return;
        side.potential[l] = side.potential[l] + alpha * (momentum::ot::kLog2e * side.step[l]);
        side.sum[l] = sum[l];
      });
    };
    take(grid.rows, r);
    take(grid.columns, c);
    __syncthreads();
    if (threadIdx.x == 0) grid.numbers[kError] = after;
  }
  if (threadIdx.x == 0) grid.numbers[kAccepted] = accepted ? 1 : 0;
}

}  // namespace momentum::cuda::ot
