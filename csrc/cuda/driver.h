// Runs one call on the GPU: tables, launches, scratch memory. Torch-free; errors come back as CUDA status codes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "core/call.h"

namespace momentum::cuda {

// Where a call runs and who owns its scratch memory: `allocate` returns device memory that stays valid until the work queued on
// the stream so far and by this call is done.
struct Context {
  cudaStream_t stream = nullptr;
  void* (*allocate)(size_t bytes, void* owner) = nullptr;
  void* owner = nullptr;
};

// Defined for each rule by the translation unit generated from rule.cu.in. Reads nothing back from the device and never
// synchronises.
template <class Rule>
cudaError_t run_step(const StepCall& call, const Context& context);

}  // namespace momentum::cuda
