// Solves a batch of transport problems on a GPU. Torch-free; errors come back as CUDA status codes.
#pragma once

#include "core/ot/batch.h"
#include "cuda/driver.h"

namespace momentum::cuda::ot {

// One launch for the whole batch, whatever its size; nothing is read back and nothing waits for the device.
cudaError_t solve(const momentum::ot::Batch& batch, const Context& context);

}  // namespace momentum::cuda::ot
