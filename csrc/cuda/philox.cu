#include "core/philox.h"
#include "cuda/philox.h"
#include "cuda/simt.h"

namespace momentum::cuda {
namespace {

constexpr int kPhiloxThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

__global__ void __launch_bounds__(kPhiloxThreads)
    philox_kernel(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count) {
  const int64_t stride = int64_t(gridDim.x) * kPhiloxThreads;
  for (int64_t i = int64_t(blockIdx.x) * kPhiloxThreads + threadIdx.x; i < count; i += stride) {
    out[i] = philox_word(seed, step, uint64_t(offset + i));
  }
}

}  // namespace

cudaError_t fill_philox(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count, const Context& context) {
  if (count == 0) return cudaSuccess;
  const int64_t blocks = (count + kPhiloxThreads - 1) / kPhiloxThreads;
  const unsigned grid = unsigned(blocks < kMaxBlocks ? blocks : kMaxBlocks);
  return simt::launch(philox_kernel, grid, kPhiloxThreads, 0, context.stream, seed, step, offset, out, count);
}

}  // namespace momentum::cuda
