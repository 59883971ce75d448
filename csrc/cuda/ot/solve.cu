// Which kernels solve a batch.
#include "cuda/ot/costs.h"
#include "cuda/ot/solve.h"

namespace momentum::cuda::ot {

cudaError_t solve_batch(const momentum::ot::Batch& batch, const Context& context) {
  const bool matrix = batch.cost.kind == momentum::ot::CostKind::kMatrix;
  if (batch.cost.is_double)
    return matrix ? solve_in_blocks<Matrix<double>>(batch, context) : solve_in_blocks<Cloud<double>>(batch, context);
  return matrix ? solve_in_blocks<Matrix<float>>(batch, context) : solve_in_blocks<Cloud<float>>(batch, context);
}

cudaError_t solve(const momentum::ot::Batch& batch, const Context& context) {
  // Up to here a cost in float stays in the second-level cache's share of its multiprocessor; beyond, one would work alone.
  constexpr int64_t kSmallProblem = 512 * 512;
  return batch.cost.n * batch.cost.m <= kSmallProblem ? solve_batch(batch, context) : solve_each(batch, context);
}

}  // namespace momentum::cuda::ot
