// Solves a batch of transport problems on a GPU. Torch-free; errors come back as CUDA status codes.
#pragma once

#include "core/ot/batch.h"
#include "cuda/driver.h"

namespace momentum::cuda::ot {

// Small problems: one launch for the whole batch, nothing is read back and nothing waits for the device.
cudaError_t solve_batch(const momentum::ot::Batch& batch, const Context& context);

// The same for one kind of cost (costs.h): block_solve.h, compiled in a file for each.
template <class Costs>
cudaError_t solve_in_blocks(const momentum::ot::Batch& batch, const Context& context);

// Large problems, one after the other on all multiprocessors. The host reads a few numbers after each sweep or Newton step.
cudaError_t solve_each(const momentum::ot::Batch& batch, const Context& context);

// Whichever of the two suits the sizes.
cudaError_t solve(const momentum::ot::Batch& batch, const Context& context);

}  // namespace momentum::cuda::ot
