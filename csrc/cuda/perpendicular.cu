// The sums behind the perpendicular part of gradients, compiled once for all rules.
#include "core/perpendicular.h"
#include "cuda/run.h"

namespace momentum::cuda {

cudaError_t run_perpendicular(const StepCall& call, int stage, const Context& context) {
  const CommonArgs common = rules::perpendicular_pass(call.common);
  Runner<rules::Perpendicular, float> single(call.tensors, common, context);
  Runner<rules::Perpendicular, double> twice(call.tensors, common, context);
  const cudaError_t error = run_reduction(single, 0, stage, TotalsLayout{}, 0);
  return error != cudaSuccess ? error : run_reduction(twice, 0, stage, TotalsLayout{}, 0);
}

}  // namespace momentum::cuda
