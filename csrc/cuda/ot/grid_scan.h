// Facts of the input, and whether a plan exists.
#pragma once

#include "cuda/ot/grid.h"

namespace momentum::cuda::ot {

inline constexpr int kStripFacts = 5;

// Masses, logarithms; b is scaled to the mass of a. One block.
__global__ void __launch_bounds__(kBlock) marginals_kernel(const Grid __grid_constant__ grid) {
  __shared__ double meeting[33];
  const auto sum_of = [&](const Lines& side, auto&& term) {
    double sum = 0;
    for_own(side.size, [&](int l) { sum += term(side.marginal[l]); });
    return block_sum(sum, meeting);
  };
  const auto itself = [](double x) { return x; };
  const auto wrong = [](double x) { return x >= 0 && x < kHuge ? 0.0 : 1.0; };
  const double mass = sum_of(grid.rows, itself), mass_b = sum_of(grid.columns, itself);
  const double bad = sum_of(grid.rows, wrong) + sum_of(grid.columns, wrong);
  const bool invalid = bad > 0 || !(math::abs(mass - mass_b) <= 1e-5 * mass);
  for_own(grid.rows.size, [&](int i) { grid.rows.log2_marginal[i] = ::log2(grid.rows.marginal[i]); });
  for_own(grid.columns.size, [&](int j) {
    if (!invalid && mass > 0) grid.columns.marginal[j] *= mass / mass_b;
    grid.columns.log2_marginal[j] = ::log2(grid.columns.marginal[j]);
  });
  if (threadIdx.x == 0) {
    grid.numbers[kMass] = mass;
    grid.numbers[kInvalid] = invalid ? 1 : 0;
  }
}

// Smallest and largest finite cost of a strip, whether it holds NaN or -inf, and which columns it reaches.
template <class Costs>
__global__ void __launch_bounds__(kBlock) scan_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  __shared__ double meeting[33];
  double low = kHuge, high = -kHuge, invalid = 0, unreached = 0, forbidden = 0;
  int* reached = grid.counts + int64_t(blockIdx.x) * grid.columns.size;
  for_own(grid.columns.size, [&](int j) { reached[j] = 0; });
  for_strip(grid, [&](int i) {
    bool some = false;
    for_own(grid.columns.size, [&](int j) {
      if (!(grid.columns.marginal[j] > 0)) return;
      const double c = cost(i, j);
      if (!(c > -kHuge)) invalid = 1;
      if (c >= kHuge) forbidden = 1;
      if (c > -kHuge && c < kHuge) {
        low = c < low ? c : low;
        high = c > high ? c : high;
        reached[j] = 1;
        some = true;
      }
    });
    if (__syncthreads_or(some ? 1 : 0) == 0) unreached = 1;
  });
  double* out = grid.partial + int64_t(blockIdx.x) * kStripFacts;
  const double smallest = -block_max(-low, meeting), largest = block_max(high, meeting);
  const double bad = block_max(invalid, meeting), lost = block_max(unreached, meeting), closed = block_max(forbidden, meeting);
  if (threadIdx.x == 0) {
    out[0] = smallest;
    out[1] = largest;
    out[2] = bad;
    out[3] = lost;
    out[4] = closed;
  }
}

__global__ void __launch_bounds__(kBlock) scan_finish_kernel(const Grid __grid_constant__ grid) {
  __shared__ double meeting[33];
  double low = kHuge, high = -kHuge, invalid = grid.numbers[kInvalid], unreached = 0, forbidden = 0;
  for_own(grid.strips, [&](int s) {
    const double* strip = grid.partial + int64_t(s) * kStripFacts;
    low = strip[0] < low ? strip[0] : low;
    high = strip[1] > high ? strip[1] : high;
    invalid = strip[2] > 0 ? 1 : invalid;
    unreached = strip[3] > 0 ? 1 : unreached;
    forbidden = strip[4] > 0 ? 1 : forbidden;
  });
  for_own(grid.columns.size, [&](int j) {
    bool reached = !(grid.columns.marginal[j] > 0);
    for (int s = 0; s < grid.strips && !reached; ++s) reached = grid.counts[int64_t(s) * grid.columns.size + j] > 0;
    if (!reached) unreached = 1;
  });
  const double smallest = -block_max(-low, meeting), largest = block_max(high, meeting);
  const double bad = block_max(invalid, meeting), lost = block_max(unreached, meeting), closed = block_max(forbidden, meeting);
  if (threadIdx.x == 0) {
    grid.numbers[kLow] = smallest;
    grid.numbers[kHigh] = largest;
    grid.numbers[kInvalid] = bad;
    grid.numbers[kUnreached] = lost;
    grid.numbers[kForbidden] = closed;
  }
}

// Whether rows S are known whose mass exceeds that of all columns N(S) they reach; see `no_plan` in core/ot/solver.h. S is the
// rows whose `order` is at least t. A column is in N(S) where the largest order of the rows that reach it is: a thread finds
// that.
template <class Costs>
__global__ void __launch_bounds__(kBlock)
    reach_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost, const double* order) {
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (j >= grid.columns.size) return;
  double top = -kHuge;
  if (grid.columns.marginal[j] > 0) {
    for (int i = 0; i < grid.rows.size; ++i) {
      if (grid.rows.marginal[i] > 0 && cost(i, j) < kHuge) top = math::max(top, order[i]);
    }
  }
  grid.columns.rise[j] = top;
}

// a(S) - b(N(S)) for t of every row, a thread each; the largest that rounding cannot have made goes to `number`.
__global__ void __launch_bounds__(kBlock) shortage_kernel(const Grid __grid_constant__ grid, const double* order, int number) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  double excess[1] = {0};
  if (i < grid.rows.size && grid.rows.marginal[i] > 0) {
    const double t = order[i];
    for (int l = 0; l < grid.rows.size; ++l) {
      if (grid.rows.marginal[l] > 0 && order[l] >= t) excess[0] += grid.rows.marginal[l];
    }
    for (int j = 0; j < grid.columns.size; ++j) {
      if (grid.columns.marginal[j] > 0 && grid.columns.rise[j] >= t) excess[0] -= grid.columns.marginal[j];
    }
  }
  if (complete<0>(grid, excess) && threadIdx.x == 0) {
    const double rounding = momentum::ot::sums_rounding(grid.rows.size + grid.columns.size) * grid.numbers[kMass];
    grid.numbers[number] = excess[0] - rounding;
  }
}

}  // namespace momentum::cuda::ot
