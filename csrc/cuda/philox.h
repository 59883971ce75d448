// Random words into device memory.
#pragma once

#include <cstdint>

#include "cuda/driver.h"

namespace momentum::cuda {

// out[i] is the word of element offset + i, as stochastic rounding uses it.
cudaError_t fill_philox(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count, const Context& context);

}  // namespace momentum::cuda
