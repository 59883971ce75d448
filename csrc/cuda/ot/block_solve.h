// The batch in one launch: every block takes problems one after the other and solves each to the end.
//
// A whole solver in one kernel takes about 14 s to compile for one kind of cost and one architecture, so each kind has a file.
#pragma once

#include <algorithm>

#include "cuda/ot/block_newton.h"
#include "cuda/ot/block_sweep.h"
#include "cuda/ot/solve.h"

namespace momentum::cuda::ot {

inline constexpr int kMaxCapacity = 128;           // entries of a line of the sparse plan
inline constexpr size_t kSharedBytes = 48 * 1024;  // vectors of larger problems are in device memory
inline constexpr size_t kScratchBytes = size_t(1)
                                        << 28;  // what the lists of all blocks may take, beyond those of one block each

// Memory of one block, in doubles: the vectors, then the lists.
struct Layout {
  int capacity;
  int64_t vectors, lists;
  bool vectors_in_shared;
};

inline Layout layout_of(int64_t n, int64_t m) {
  const int64_t larger = std::max(n, m);
  Layout layout;
  layout.capacity = int(std::min<int64_t>(larger, kMaxCapacity));
  layout.vectors = kSideVectors * (n + m) + kSolverVectors * larger;
  layout.vectors_in_shared = size_t(layout.vectors) * sizeof(double) + 1024 <= kSharedBytes;
  const int64_t entries = layout.capacity * (n + m);
  layout.lists = entries + (entries + n + m + 1) / 2;  // values, then indices and counts
  return layout;
}

// Takes the next `size` elements.
template <class T>
__device__ __forceinline__ T* take(T*& free, int64_t size) {
  T* taken = free;
  free += size;
  return taken;
}

__device__ __forceinline__ Side place(int size, double*& vectors, double*& values, int*& integers, int capacity) {
  Side side;
  side.size = size;
  side.marginal = take(vectors, size);
  side.log2_marginal = take(vectors, size);
  side.potential = take(vectors, size);
  side.sum = take(vectors, size);
  side.step = take(vectors, size);
  side.rise = take(vectors, size);
  side.next_sum = take(vectors, int64_t(kTried) * size);
  side.value = take(values, int64_t(capacity) * size);
  side.index = take(integers, int64_t(capacity) * size);
  side.count = take(integers, size);
  return side;
}

template <class Costs>
__global__ void __launch_bounds__(kMaxThreads, 1)
    solve_kernel(const momentum::ot::Batch __grid_constant__ batch, const Layout __grid_constant__ layout, double* scratch) {
  __shared__ double meeting[33];
  const int n = int(batch.cost.n), m = int(batch.cost.m);
  double* own = scratch + blockIdx.x * (layout.lists + (layout.vectors_in_shared ? 0 : layout.vectors));
  double* values = own;
  int* integers = reinterpret_cast<int*>(own + int64_t(layout.capacity) * (n + m));
  double* vectors = layout.vectors_in_shared ? simt::dynamic_shared<double>() : own + layout.lists;
  BlockMachine<Costs> machine;
  machine.rows = place(n, vectors, values, integers, layout.capacity);
  machine.columns = place(m, vectors, values, integers, layout.capacity);
  machine.workspace = vectors;
  machine.meeting = meeting;
  machine.capacity = layout.capacity;

  for (int64_t problem = blockIdx.x; problem < batch.count; problem += gridDim.x) {
    machine.cost = Costs::of(batch.cost, problem);
    machine.reg = batch.reg[problem];
    for (int i = threadIdx.x; i < n; i += blockDim.x) machine.rows.marginal[i] = batch.a[problem * n + i];
    for (int j = threadIdx.x; j < m; j += blockDim.x) machine.columns.marginal[j] = batch.b[problem * m + j];
    __syncthreads();
    momentum::ot::Options options = batch.options;
    options.reg = machine.reg;
    momentum::ot::Solver<BlockMachine<Costs>> solver{machine, options};
    const momentum::ot::Outcome out = solver.run();
    double* f = batch.f + problem * n;
    double* g = batch.g + problem * m;
    if (out.status == momentum::ot::Status::kInfeasible || out.status == momentum::ot::Status::kInvalid || machine.mass == 0) {
      for (int i = threadIdx.x; i < n; i += blockDim.x) f[i] = 0;
      for (int j = threadIdx.x; j < m; j += blockDim.x) g[j] = 0;
    } else {
      machine.potentials(f, g);
    }
    if (threadIdx.x == 0) {
      momentum::ot::write_outcome(out, batch.numbers + problem * momentum::ot::kNumbers,
                                  batch.counts + problem * momentum::ot::kCounts);
    }
    __syncthreads();
  }
}

template <class Costs>
cudaError_t solve_in_blocks(const momentum::ot::Batch& batch, const Context& context) {
  const Layout layout = layout_of(batch.cost.n, batch.cost.m);
  const int64_t lines = std::max(batch.cost.n, batch.cost.m);
  const int threads = int(std::min<int64_t>(kMaxThreads, (lines + 31) / 32 * 32));
  const size_t shared = layout.vectors_in_shared ? size_t(layout.vectors) * sizeof(double) : 0;
  int device = 0, multiprocessors = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, solve_kernel<Costs>, threads, shared);
  }
  if (error != cudaSuccess) return error;
  const int64_t doubles = layout.lists + (layout.vectors_in_shared ? 0 : layout.vectors);
  const int64_t resident = std::max<int64_t>(1, int64_t(multiprocessors) * each);
  const int64_t affordable = std::max<int64_t>(multiprocessors, int64_t(kScratchBytes) / (doubles * 8));
  const int64_t grid = std::min({batch.count, resident, affordable});

  momentum::ot::Batch on_device = batch;
  const size_t reg_bytes = size_t(batch.count) * sizeof(double);
  auto* reg = static_cast<double*>(context.allocate(reg_bytes, context.owner));
  error = cudaMemcpyAsync(reg, batch.reg, reg_bytes, cudaMemcpyHostToDevice, context.stream);
  if (error != cudaSuccess) return error;
  on_device.reg = reg;
  auto* scratch = static_cast<double*>(context.allocate(size_t(grid * doubles) * sizeof(double), context.owner));
  return simt::launch(solve_kernel<Costs>, unsigned(grid), unsigned(threads), shared, context.stream, on_device, layout,
                      scratch);
}

}  // namespace momentum::cuda::ot
