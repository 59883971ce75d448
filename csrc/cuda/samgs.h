// SAM-GS on the GPU.
#pragma once

#include "core/samgs.h"
#include "cuda/driver.h"

namespace momentum::cuda {

cudaError_t decide_samgs(const SamgsDecision& decision, const Context& context);
cudaError_t run_samgs(const SamgsCall& call, const Context& context);

}  // namespace momentum::cuda
