// Sweeps and evaluations of one problem on the whole GPU. A sweep reads the cost once: the exponentials of a row stay on chip
// until their sum is known, are scaled by it and added to the columns.
#pragma once

#include "cuda/ot/grid.h"

namespace momentum::cuda::ot {

// Potentials of the product measure, or those of another temperature.
__global__ void __launch_bounds__(kBlock)
    temperature_kernel(const Grid __grid_constant__ grid, bool start, double offset, double factor) {
  const int line = int(blockIdx.x * blockDim.x + threadIdx.x);
  const bool is_row = line < grid.rows.size;
  const Lines& side = is_row ? grid.rows : grid.columns;
  const int l = is_row ? line : line - grid.rows.size;
  if (l >= side.size) return;
  if (start) {
    side.potential[l] = side.log2_marginal[l] + offset;
  } else if (side.marginal[l] > 0) {
    side.potential[l] = momentum::ot::rescale(side.potential[l], side.log2_marginal[l], factor);
  }
}

// The column update, a thread for each. Sums that underflowed are made again: a second read of those columns alone.
template <class Costs>
__global__ void __launch_bounds__(kBlock)
    columns_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x);
  const Lines& columns = grid.columns;
  if (j >= columns.size || !(columns.marginal[j] > 0)) return;
  const double sum = columns.sum[j];
  if (sum > kSmallestSum && sum < kLargestSum) {
    columns.potential[j] += ::log2(columns.marginal[j] / sum);
    return;
  }
  double top = -kHuge, total = 0;
  for (int i = 0; i < grid.rows.size; ++i) {
    const double exponent = grid.rows.potential[i] - grid.k * cost(i, j);
    top = exponent > top ? exponent : top;
  }
  for (int i = 0; i < grid.rows.size; ++i) {
    total += power<typename Costs::Type>((grid.rows.potential[i] - top) - grid.k * cost(i, j));
  }
  columns.potential[j] = columns.log2_marginal[j] - (top + ::log2(total));
}

// Row updates and the columns' sums after them, in one read of the cost.
template <class Costs>
__global__ void __launch_bounds__(kBlock) sweep_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  using T = typename Costs::Type;
  __shared__ double meeting[33];
  const int m = grid.columns.size;
  double* out = grid.partial + int64_t(blockIdx.x) * m;
  double* terms = grid.on_chip ? simt::dynamic_shared<double>() : grid.row_terms + int64_t(blockIdx.x) * m;
  double* sums = grid.on_chip ? terms + m : out;
  const double* v = grid.columns.potential;
  for_own(m, [&](int j) { sums[j] = 0; });
  for_strip(grid, [&](int i) {
    const auto exponentiate = [&](double u) {
      double sum = 0;
      for_own(m, [&](int j) {
        terms[j] = power<T>((v[j] + u) - grid.k * cost(i, j));
        sum += terms[j];
      });
      return block_sum(sum, meeting);
    };
    double u = grid.rows.potential[i];
    double sum = exponentiate(u);
    if (!(sum > kSmallestSum && sum < kLargestSum)) {
      double top = -kHuge;
      for_own(m, [&](int j) {
        const double exponent = v[j] - grid.k * cost(i, j);
        top = exponent > top ? exponent : top;
      });
      u = -block_max(top, meeting);
      sum = exponentiate(u);
    }
    const double scale = grid.rows.marginal[i] / sum;
    for_own(m, [&](int j) { sums[j] += scale * terms[j]; });
    if (threadIdx.x == 0) {
      const double after = u + ::log2(scale);
      grid.rows.rise[i] = after - grid.rows.potential[i];
      grid.rows.potential[i] = after;
    }
  });
  if (grid.on_chip) for_own(m, [&](int j) { out[j] = sums[j]; });
}

// Sums of rows and columns of the plan where it is, or at all lengths of a line search, in one read of the cost. A thread adds
// up its column of the strip in registers, a warp its part of a row.
template <class Costs, int kCount>
__global__ void __launch_bounds__(kBlock, 1)
    evaluate_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  using T = typename Costs::Type;
  static_assert(kCount == 1 || kCount == kLengths);
  constexpr int kWarps = kBlock / 32;
  __shared__ double parts[kCount][kWarps][kStripRows];
  const int m = grid.columns.size, lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int first = int(blockIdx.x) * kStripRows;
  double alpha[kCount] = {};
  if constexpr (kCount > 1) {
    MOMENTUM_UNROLL
    for (int a = 0; a < kCount; ++a) alpha[a] = momentum::ot::step_length(a, grid.numbers[kGrowth]);
  }
  for_own(kCount * kWarps * kStripRows, [&](int e) { (&parts[0][0][0])[e] = 0; });
  __syncthreads();
  for (int base = 0; base < m; base += kBlock) {
    const int j = base + int(threadIdx.x);
    const double v = j < m ? grid.columns.potential[j] : 0, dv = j < m ? momentum::ot::kLog2e * grid.columns.step[j] : 0;
    double sums[kCount] = {};
    for_strip(grid, [&](int i) {
      const double u = grid.rows.potential[i], du = momentum::ot::kLog2e * grid.rows.step[i];
      const double c = j < m ? grid.k * cost(i, j) : 0;
      MOMENTUM_UNROLL
      for (int a = 0; a < kCount; ++a) {
        double p = j < m ? power<T>(((v + alpha[a] * dv) + (u + alpha[a] * du)) - c) : 0;
        sums[a] += p;
        for (int offset = 16; offset > 0; offset /= 2) p += __shfl_xor_sync(0xffffffffu, p, offset);
        if (lane == 0) parts[a][warp][i - first] += p;
      }
    });
    MOMENTUM_UNROLL
    for (int a = 0; a < kCount; ++a) {
      if (j < m) grid.partial[(int64_t(a) * grid.strips + blockIdx.x) * m + j] = sums[a];
    }
  }
  __syncthreads();
  for_own(kCount * kStripRows, [&](int e) {
    const int a = e / kStripRows, row = e % kStripRows;
    if (first + row >= grid.rows.size) return;
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += parts[a][w][row];
    grid.rows.next_sum[int64_t(a) * grid.rows.size + first + row] = sum;
  });
}

// Adds the strips' columns, in order: length blockIdx.y of the search.
__global__ void __launch_bounds__(kBlock) add_columns_kernel(const Grid __grid_constant__ grid) {
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x), m = grid.columns.size;
  if (j >= m) return;
  double sum = 0;
  for (int s = 0; s < grid.strips; ++s) sum += grid.partial[(int64_t(blockIdx.y) * grid.strips + s) * m + j];
  grid.columns.next_sum[int64_t(blockIdx.y) * m + j] = sum;
}

// Takes the sums over (rows' own after a sweep are their marginals), and measures. One block.
__global__ void __launch_bounds__(kBlock) measure_kernel(const Grid __grid_constant__ grid, bool after_sweep) {
  __shared__ double meeting[33];
  double error = 0, u = 0, v = 0;
  const auto measure = [&](const Lines& side, bool exact, double& largest) {
    for_own(side.size, [&](int l) {
      if (!(side.marginal[l] > 0)) {
        side.sum[l] = 0;
        return;
      }
      side.sum[l] = exact ? side.marginal[l] : side.next_sum[l];
      error += math::abs(side.sum[l] - side.marginal[l]);
      largest = math::max(largest, math::abs(side.potential[l]));
    });
  };
  measure(grid.rows, after_sweep, u);
  measure(grid.columns, false, v);
  const double total = block_sum(error, meeting);
  const double largest = block_max(u, meeting) + block_max(v, meeting);
  if (threadIdx.x == 0) {
    grid.numbers[kError] = total;
    grid.numbers[kLargest] = largest;
  }
}

// The regularised cost, from the dual. One block.
__global__ void __launch_bounds__(kBlock) value_kernel(const Grid __grid_constant__ grid, double reg) {
  __shared__ double meeting[33];
  double value = 0;
  const auto add = [&](const Lines& side) {
    for_own(side.size, [&](int l) {
      const double x = side.marginal[l];
      if (x > 0) value += momentum::ot::kLn2 * x * (side.potential[l] - side.log2_marginal[l]);
    });
  };
  add(grid.rows);
  add(grid.columns);
  for_own(grid.rows.size, [&](int i) { value -= grid.rows.sum[i]; });
  const double total = block_sum(value, meeting);
  if (threadIdx.x == 0) grid.numbers[kValue] = reg * (grid.numbers[kMass] + total);
}

// The potentials in units of the cost, relative to the measure a x b, with a.f = b.g. One block.
__global__ void __launch_bounds__(kBlock)
    potentials_kernel(const Grid __grid_constant__ grid, double unit, double* f, double* g) {
  __shared__ double meeting[33];
  const auto scaled = [&](const Lines& side, int l) {
    return side.marginal[l] > 0 ? unit * (side.potential[l] - side.log2_marginal[l]) : 0.0;
  };
  double difference = 0;
  for_own(grid.rows.size, [&](int i) { difference += grid.rows.marginal[i] * scaled(grid.rows, i); });
  for_own(grid.columns.size, [&](int j) { difference -= grid.columns.marginal[j] * scaled(grid.columns, j); });
  const double shift = block_sum(difference, meeting) / (2 * grid.numbers[kMass]);
  for_own(grid.rows.size, [&](int i) { f[i] = grid.rows.marginal[i] > 0 ? scaled(grid.rows, i) - shift : 0; });
  for_own(grid.columns.size, [&](int j) { g[j] = grid.columns.marginal[j] > 0 ? scaled(grid.columns, j) + shift : 0; });
}

}  // namespace momentum::cuda::ot
