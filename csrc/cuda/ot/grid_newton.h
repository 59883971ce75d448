// The sparse Newton step on the whole GPU: threshold to compressed lists, conjugate gradients, choice of the step length. The
// host waits for nothing before the end of the step.
#pragma once

#include "cuda/ot/grid_kernels.h"

namespace momentum::cuda::ot {

__global__ void __launch_bounds__(kBlock) bounds_kernel(const Grid __grid_constant__ grid) {
  const int line = int(blockIdx.x * blockDim.x + threadIdx.x);
  const bool is_row = line < grid.rows.size;
  const Lines& side = is_row ? grid.rows : grid.columns;
  const int l = is_row ? line : line - grid.rows.size, other = is_row ? grid.columns.size : grid.rows.size;
  if (l < side.size) side.bound[l] = side.sum[l] > 0 ? ::log2(side.sum[l] / double(other)) : kHuge;
}

// Thresholds are tried one after the other, each launched whether it is needed or not: those after the first whose entries
// find room return at once.
__device__ __forceinline__ bool settled(const Grid& grid, int attempt) {
  return attempt > 0 && grid.numbers[kKept] <= double(grid.capacity);
}

// How many entries are kept, of each row and of each column within a strip.
template <class Costs>
__global__ void __launch_bounds__(kBlock)
    count_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost, int attempt, double log2_theta) {
  if (settled(grid, attempt)) return;
  const int m = grid.columns.size;
  int* own = grid.counts + int64_t(blockIdx.x) * m;
  for_own(m, [&](int j) { own[j] = 0; });
  for_strip(grid, [&](int i) {
    int count = 0;
    for (int base = 0; base < m; base += kBlock) {
      const int j = base + int(threadIdx.x);
      bool keep = false;
      if (j < m) {
        const double exponent = (grid.columns.potential[j] + grid.rows.potential[i]) - grid.k * cost(i, j);
        keep = kept(grid, exponent, i, j, log2_theta);
        own[j] += keep ? 1 : 0;
      }
      count += __syncthreads_count(keep ? 1 : 0);
    }
    if (threadIdx.x == 0) grid.row_counts[i] = count;
  });
}

// Where each strip begins within its columns; the columns' totals go to `begin`, shifted by one.
__global__ void __launch_bounds__(kBlock) strips_kernel(const Grid __grid_constant__ grid, int attempt) {
  if (settled(grid, attempt)) return;
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x), m = grid.columns.size;
  if (j >= m) return;
  int64_t total = 0;
  for (int s = 0; s < grid.strips; ++s) {
    int& count = grid.counts[int64_t(s) * m + j];
    const int strip = count;
    count = int(total);
    total += strip;
  }
  grid.columns.begin[j + 1] = total;
}

// Inclusive sums of begin[1 .. size], in one block.
__device__ __forceinline__ void accumulate(int64_t* begin, int size, int64_t* meeting) {
  const int share = (size + int(blockDim.x) - 1) / int(blockDim.x);
  const int first = int(threadIdx.x) * share, last = first + share < size ? first + share : size;
  int64_t sum = 0;
  for (int l = first; l < last; ++l) sum += begin[l + 1];
  meeting[threadIdx.x] = sum;
  __syncthreads();
  int64_t before = 0;
  for (int t = 0; t < int(threadIdx.x); ++t) before += meeting[t];
  for (int l = first; l < last; ++l) {
    before += begin[l + 1];
    begin[l + 1] = before;
  }
  if (threadIdx.x == 0) begin[0] = 0;
  __syncthreads();
}

__global__ void __launch_bounds__(kBlock) begins_kernel(const Grid __grid_constant__ grid, int attempt, double log2_theta) {
  __shared__ int64_t meeting[kBlock];
  if (settled(grid, attempt)) return;
  __syncthreads();
  for_own(grid.rows.size, [&](int i) { grid.rows.begin[i + 1] = grid.rows.marginal[i] > 0 ? grid.row_counts[i] : 0; });
  __syncthreads();
  accumulate(grid.rows.begin, grid.rows.size, meeting);
  accumulate(grid.columns.begin, grid.columns.size, meeting);
  if (threadIdx.x == 0) {
    grid.numbers[kKept] = double(grid.rows.begin[grid.rows.size]);
    grid.numbers[kTheta] = log2_theta;
  }
}

// The lists, by rows and by columns, in order.
template <class Costs>
__global__ void __launch_bounds__(kBlock) fill_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  constexpr int kWarps = kBlock / 32;
  __shared__ int found[kWarps];
  if (grid.numbers[kKept] > double(grid.capacity)) return;  // the step will be refused
  const double log2_theta = grid.numbers[kTheta];
  const int m = grid.columns.size, lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  int* own = grid.counts + int64_t(blockIdx.x) * m;
  for_strip(grid, [&](int i) {
    int64_t row_at = grid.rows.begin[i];
    for (int base = 0; base < m; base += kBlock) {
      const int j = base + int(threadIdx.x);
      bool keep = false;
      double exponent = 0;
      if (j < m) {
        exponent = (grid.columns.potential[j] + grid.rows.potential[i]) - grid.k * cost(i, j);
        keep = kept(grid, exponent, i, j, log2_theta);
      }
      const unsigned votes = __ballot_sync(0xffffffffu, keep);
      if (lane == 0) found[warp] = __popc(votes);
      __syncthreads();
      int before = __popc(votes & ((1u << lane) - 1u)), all = 0;
      MOMENTUM_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        before += w < warp ? found[w] : 0;
        all += found[w];
      }
      if (keep) {
        const double p = power<typename Costs::Type>(exponent);
        grid.rows.index[row_at + before] = j;
        grid.rows.value[row_at + before] = p;
        const int64_t column_at = grid.columns.begin[j] + own[j];
        own[j] += 1;
        grid.columns.index[column_at] = i;
        grid.columns.value[column_at] = p;
      }
      row_at += all;
      __syncthreads();
    }
  });
}

// The direction by conjugate gradients on the smaller side, from the first product to the last in one block; see
// cpu/ot/system.isa.cpp for the system. A warp takes a line of the sparse plan, in an order of its own.
__global__ void __launch_bounds__(kSolveBlock, 1) direction_kernel(const Grid __grid_constant__ grid, double tolerance) {
  __shared__ double meeting[33];
  const bool by_rows = grid.rows.size <= grid.columns.size;
  const Lines& outer = by_rows ? grid.rows : grid.columns;
  const Lines& inner = by_rows ? grid.columns : grid.rows;
  const int stride = inner.size;  // the larger
  double* inverse = grid.workspace;
  double* residual = inverse + stride;
  double* p = residual + stride;
  double* q = p + stride;
  double* middle = q + stride;
  double* d = outer.step;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;

  if (grid.numbers[kKept] > double(grid.capacity)) {
    for_own(outer.size, [&](int i) { outer.step[i] = 0; });
    for_own(inner.size, [&](int j) { inner.step[j] = 0; });
    if (threadIdx.x == 0) grid.numbers[kSlope] = grid.numbers[kLinear] = grid.numbers[kCg] = 0;
    return;
  }
  // out(line, S x) for every line, called by one lane.
  const auto multiply = [&](const Lines& side, const double* x, auto&& out) {
    for (int line = warp; line < side.size; line += warps) {
      double sum = 0;
      for (int64_t e = side.begin[line] + lane; e < side.begin[line + 1]; e += 32) sum += side.value[e] * x[side.index[e]];
      for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      if (lane == 0) out(line, sum);
    }
    __syncthreads();
  };
  const auto total = [&](int size, auto&& term) {
    double sum = 0;
    for_own(size, [&](int l) { sum += term(l); });
    return block_sum(sum, meeting);
  };

  for_own(inner.size, [&](int j) { inner.step[j] = inner.sum[j] > 0 ? (inner.marginal[j] - inner.sum[j]) / inner.sum[j] : 0; });
  __syncthreads();
  multiply(outer, inner.step, [&](int i, double sum) { residual[i] = outer.marginal[i] - outer.sum[i] - sum; });
  const double kept_mass = total(outer.size, [&](int i) {
    double diagonal = outer.sum[i], line = 0;
    for (int64_t e = outer.begin[i]; e < outer.begin[i + 1]; ++e) {
      diagonal -= outer.value[e] * outer.value[e] / inner.sum[outer.index[e]];
      line += outer.value[e];
    }
    const double least = 1e-8 * outer.sum[i];
    inverse[i] = outer.sum[i] > 0 ? 1 / (diagonal > least ? diagonal : least) : 0;
    d[i] = 0;
    return line;
  });
  const double mass = grid.numbers[kMass];
  const bool project = mass - kept_mass < 1e-13 * mass;
  const double present = total(outer.size, [&](int i) { return outer.sum[i] > 0 ? 1.0 : 0.0; });
  const auto subtract_mean = [&] {
    const double mean = total(outer.size, [&](int i) { return residual[i]; }) / present;
    for_own(outer.size, [&](int i) { residual[i] -= outer.sum[i] > 0 ? mean : 0; });
  };
  if (project) subtract_mean();
  double rz = total(outer.size, [&](int i) {
    p[i] = inverse[i] * residual[i];
    return p[i] * residual[i];
  });
  double rr = total(outer.size, [&](int i) { return residual[i] * residual[i]; });
  const double enough = tolerance * tolerance * rr;
  int steps = 0;
  while (steps < kCgSteps && rr > enough) {
    multiply(inner, p, [&](int j, double sum) { middle[j] = inner.sum[j] > 0 ? sum / inner.sum[j] : 0; });
    multiply(outer, middle, [&](int i, double sum) { q[i] = outer.sum[i] * p[i] - sum; });
    const double curvature = total(outer.size, [&](int i) { return p[i] * q[i]; });
    if (!(curvature > 0)) break;
    const double alpha = rz / curvature;
    for_own(outer.size, [&](int i) {
      d[i] += alpha * p[i];
      residual[i] -= alpha * q[i];
    });
    if (project) subtract_mean();
    const double next = total(outer.size, [&](int i) { return inverse[i] * residual[i] * residual[i]; });
    rr = total(outer.size, [&](int i) { return residual[i] * residual[i]; });
    const double beta = next / rz;
    for_own(outer.size, [&](int i) { p[i] = inverse[i] * residual[i] + beta * p[i]; });
    __syncthreads();
    rz = next;
    ++steps;
  }
  multiply(inner, d, [&](int j, double sum) { inner.step[j] -= inner.sum[j] > 0 ? sum / inner.sum[j] : 0; });
  const double linear = total(outer.size, [&](int i) { return outer.marginal[i] * outer.step[i]; }) +
                        total(inner.size, [&](int j) { return inner.marginal[j] * inner.step[j]; });
  const double back = total(outer.size, [&](int i) { return outer.sum[i] * outer.step[i]; }) +
                      total(inner.size, [&](int j) { return inner.sum[j] * inner.step[j]; });
  if (threadIdx.x == 0) {
    grid.numbers[kLinear] = linear;
    grid.numbers[kSlope] = linear - back;
    grid.numbers[kCg] = double(steps);
  }
}

// Takes the longest step that `accepts` allows, if any. One block.
__global__ void __launch_bounds__(kBlock, 1)
    choose_kernel(const Grid __grid_constant__ grid, const Lengths __grid_constant__ at, bool may_accept) {
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
    const double growth = total(grid.rows, [&](int i) { return r[i] - grid.rows.sum[i]; });
    const double alpha = at.alpha[a];
    if (accepted || !may_accept || !(slope > 0) ||
        !momentum::ot::accepts(alpha, slope, alpha * linear - growth, before, after, mass)) {
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
