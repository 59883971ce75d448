// C = A A^T for a row-major bf16 A of n x k (k a multiple of 8), the way the project's matrix kernels work: 64 x 64 tiles
// of the lower triangle, mirrored on store; a three-stage pipeline of asynchronous copies; ldmatrix; mma with fp32 sums.
// What can go wrong in such a pipeline is a parameter: the groups a wait leaves in flight, and the barrier.
#pragma once

#include <cuda_bf16.h>

#include "../../../csrc/cuda/ptx.h"

namespace syrk {

namespace ptx = momentum::ptx;

constexpr int kTile = 64, kDepth = 32, kStages = 3, kThreads = 128;
constexpr int kStride = kDepth + 8;  // puts the eight rows of a matrix into different banks
constexpr int kPanel = kTile * kStride;
constexpr int kSharedBytes = kStages * 2 * kPanel * 2;
constexpr int kRightWait = kStages - 2;

__device__ inline void load_panel(__nv_bfloat16* panel, const __nv_bfloat16* a, int n, int k, int first_row, int first_column) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth / 8; i += kThreads) {
    const int row = i / (kDepth / 8), column = i % (kDepth / 8) * 8;
    const bool inside = first_row + row < n && first_column + column < k;
    const auto* source = a + (inside ? static_cast<long>(first_row + row) * k + first_column + column : 0);
    ptx::copy_async<16>(panel + row * kStride + column, source, inside);
  }
}

template <int kInFlight, bool kBarrier>
__global__ void __launch_bounds__(kThreads) kernel(const __nv_bfloat16* a, float* c, int n, int k) {
  auto* shared = momentum::simt::dynamic_shared<__nv_bfloat16>();
  int tile_row = 0, tile_column = static_cast<int>(blockIdx.x);
  while (tile_column > tile_row) tile_column -= ++tile_row;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warp_row = thread / 64 * 32, warp_column = thread / 32 % 2 * 32;
  const auto panel = [&](int step, int side) { return shared + (step % kStages * 2 + side) * kPanel; };
  const auto load = [&](int step) {
    load_panel(panel(step, 0), a, n, k, tile_row * kTile, step * kDepth);
    load_panel(panel(step, 1), a, n, k, tile_column * kTile, step * kDepth);
    ptx::commit_copies();
  };

  float sum[2][4][4] = {};
  for (int step = 0; step < kStages - 1; ++step) load(step);
  for (int step = 0; step * kDepth < k; ++step) {
    ptx::wait_copies<kInFlight>();
    if constexpr (kBarrier) __syncthreads();
    load(step + kStages - 1);
    for (int depth = 0; depth < kDepth; depth += 16) {
      uint32_t left[2][4], right[4][2];
      for (int i = 0; i < 2; ++i) {
        const int row = warp_row + i * 16 + lane % 16;
        ptx::load_matrices<false>(left[i], panel(step, 0) + row * kStride + depth + lane / 16 * 8);
      }
      for (int j = 0; j < 4; ++j) {
        const int row = warp_column + j * 8 + lane % 8;
        ptx::load_matrices<false>(right[j], panel(step, 1) + row * kStride + depth + lane / 8 % 2 * 8);
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) ptx::multiply_add_bf16(sum[i][j], left[i], right[j]);
      }
    }
  }

  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int e = 0; e < 4; ++e) {
        const int row = tile_row * kTile + warp_row + i * 16 + lane / 4 + e / 2 * 8;
        const int column = tile_column * kTile + warp_column + j * 8 + lane % 4 * 2 + e % 2;
        if (row >= n || column >= n) continue;
        c[static_cast<long>(row) * n + column] = sum[i][j][e];
        if (tile_row != tile_column) c[static_cast<long>(column) * n + row] = sum[i][j][e];
      }
    }
  }
}

// Runs the kernel on small integers, of which every sum is exact, and compares with three loops.
template <int kInFlight, bool kBarrier>
void check(int n, int k) {
  std::vector<__nv_bfloat16> a(static_cast<std::size_t>(n * k));
  for (int i = 0; i < n * k; ++i) a[static_cast<std::size_t>(i)] = __float2bfloat16(static_cast<float>(i * 31 % 17 - 8));
  std::vector<float> c(static_cast<std::size_t>(n * n)), expected(c.size());
  const int tiles = (n + kTile - 1) / kTile;
  launch(kernel<kInFlight, kBarrier>, static_cast<unsigned>(tiles * (tiles + 1) / 2), kThreads, kSharedBytes,
         static_cast<const __nv_bfloat16*>(a.data()), c.data(), n, k);
  for (int row = 0; row < n; ++row) {
    for (int column = 0; column < n; ++column) {
      float& sum = expected[static_cast<std::size_t>(row * n + column)];
      for (int i = 0; i < k; ++i) {
        sum += __bfloat162float(a[static_cast<std::size_t>(row * k + i)]) *
               __bfloat162float(a[static_cast<std::size_t>(column * k + i)]);
      }
    }
  }
  expect_equal("product", c, expected);
}

}  // namespace syrk
