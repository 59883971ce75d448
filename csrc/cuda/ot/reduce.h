// Reductions over a block, and the numbers that both solvers share.
#pragma once

#include "core/math.h"
#include "cuda/simt.h"

namespace momentum::cuda::ot {

inline constexpr int kCgSteps = 1000;
// Sums outside are made again from their largest term: entries below 2^-1022 are 0, and may have been part of them.
inline constexpr double kSmallestSum = 1e-200, kLargestSum = 1e200;
inline constexpr double kHuge = 1e308;

// The sum over the block, the same in all its threads; `meeting` is shared memory for 33 numbers.
__device__ __forceinline__ double block_sum(double x, double* meeting) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (lane == 0) meeting[warp] = x;
  __syncthreads();
  if (warp == 0) {
    double total = lane < warps ? meeting[lane] : 0;
    for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
    if (lane == 0) meeting[32] = total;
  }
  __syncthreads();
  return meeting[32];
}

__device__ __forceinline__ double block_max(double x, double* meeting) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int offset = 16; offset > 0; offset /= 2) x = math::max(x, __shfl_xor_sync(0xffffffffu, x, offset));
  if (lane == 0) meeting[warp] = x;
  __syncthreads();
  if (warp == 0) {
    double best = lane < warps ? meeting[lane] : -kHuge;
    for (int offset = 16; offset > 0; offset /= 2) best = math::max(best, __shfl_xor_sync(0xffffffffu, best, offset));
    if (lane == 0) meeting[32] = best;
  }
  __syncthreads();
  return meeting[32];
}

}  // namespace momentum::cuda::ot
