// Runs one call on the GPU: tables, launches, scratch memory. Torch-free; errors come back as CUDA status codes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "core/call.h"

namespace momentum::cuda {

// Where a call runs and who owns its memory: `allocate` returns device memory that stays valid until the work queued on the
// stream so far and by this call is done, `reserve` memory that stays valid for all work queued before the pointer is given up
// (null: long tables take several launches).
struct Context {
  cudaStream_t stream = nullptr;
  void* (*allocate)(size_t bytes, void* owner) = nullptr;
  void* owner = nullptr;
  std::shared_ptr<void> (*reserve)(size_t bytes, void* owner) = nullptr;
};

// Defined for each rule by the translation unit generated from rule.cu.in. Reads nothing back from the device and never
// synchronises.
template <class Rule>
cudaError_t run_step(const StepCall& call, const Context& context);

// The pass that a call with `perpendicular` starts with: all of it, its sums (stage 0), or what is read of them (stage 1).
cudaError_t run_perpendicular(const StepCall& call, int stage, const Context& context);

}  // namespace momentum::cuda
