// The plain reductions.
#include "core/statistic.h"
#include "cuda/run.h"

namespace momentum::cuda {

template <>
cudaError_t run_step<rules::Statistic>(const StepCall& call, const Context& context) {
  return run_rule<rules::Statistic>(call, context);
}

}  // namespace momentum::cuda
