// Launches a kernel for every table of a call, with no more blocks than run at once.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>

#include "cuda/simt.h"
#include "cuda/table_launch.h"

namespace momentum::cuda {

// Blocks of `kernel` that run at once on the current device; asked once per device.
template <auto kKernel>
cudaError_t resident_blocks(int* blocks) {
  static std::atomic<int> known[64] = {};
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  *blocks = device < 64 ? known[device].load(std::memory_order_relaxed) : 0;
  if (*blocks > 0) return cudaSuccess;
  int multiprocessors = 0, each = 0;
  cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kKernel, kThreads, 0);
  if (error != cudaSuccess) return error;
  *blocks = std::max(1, multiprocessors * each);
  if (device < 64) known[device].store(*blocks, std::memory_order_relaxed);
  return cudaSuccess;
}

// A persistent grid: a block for each chunk, but no more than are resident; none where there are no chunks.
struct BlockPerChunk {
  unsigned least = 0;
  template <class Header>
  unsigned operator()(const Header& header, unsigned resident) const {
    return std::max(least, std::min(header.chunks, resident));
  }
};

// `blocks_of(header, resident)` says how many blocks a launch has; with none it is left out. `more` follows the kernel's first
// argument, the parameters.
template <auto kKernel, class Launch, class BlocksOf, class... More>
cudaError_t launch_tables(Launch& launch, const Context& context, BlocksOf&& blocks_of, More... more) {
  if (launch.empty()) return cudaSuccess;
  int resident = 0;
  if (const cudaError_t error = resident_blocks<kKernel>(&resident); error != cudaSuccess) return error;
  return launch.run(reinterpret_cast<const void*>(kKernel), context, [&](const auto& params) {
    const unsigned blocks = blocks_of(params.header, unsigned(resident));
    return blocks == 0 ? cudaSuccess : simt::launch(kKernel, blocks, kThreads, 0, context.stream, params, more...);
  });
}

}  // namespace momentum::cuda
