// StableMax cross-entropy on the GPU.
#pragma once

#include "core/stablemax.h"
#include "cuda/driver.h"

namespace momentum::cuda {

cudaError_t run_stablemax_loss(const StableMaxCall& call, const Context& context);
cudaError_t run_stablemax_grad(const StableMaxCall& call, const Context& context);

}  // namespace momentum::cuda
