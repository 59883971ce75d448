// Steps on a subset of the elements, on the GPU.
#pragma once

#include "core/subset.h"
#include "cuda/driver.h"

namespace momentum::cuda {

// Defined for Spam, Adam, Lion and Sgd.
template <class Rule>
cudaError_t run_subset(const SubsetCall& call, const Context& context);

}  // namespace momentum::cuda
