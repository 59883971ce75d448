// Quantising and dequantising on the GPU.
#pragma once

#include "core/conversion.h"
#include "cuda/driver.h"

namespace momentum::cuda {

cudaError_t run_conversion(const Conversion& conversion, const Context& context);

}  // namespace momentum::cuda
