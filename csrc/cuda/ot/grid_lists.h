// The sparse plan: threshold to compressed lists, by rows and by columns, without sorting.
#pragma once

#include "cuda/ot/grid.h"

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

}  // namespace momentum::cuda::ot
