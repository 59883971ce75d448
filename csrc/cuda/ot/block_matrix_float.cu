#include "cuda/ot/block_solve.h"

namespace momentum::cuda::ot {

template cudaError_t solve_in_blocks<Matrix<float>>(const momentum::ot::Batch& batch, const Context& context);

}  // namespace momentum::cuda::ot
