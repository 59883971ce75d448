// The host side of the kernels of one rule: the stages of a call, in order.
#pragma once

#include "cuda/run_map.h"
#include "cuda/run_reductions.h"
#include "cuda/run_selections.h"

namespace momentum::cuda {

// Reduction k of a call, or as much of it as one stage is.
template <class Rule, class T>
cudaError_t run_reduction(Runner<Rule, T>& runner, int k, int stage, const TotalsLayout& layout, int64_t totals_begin) {
  const bool whole = stage == kWholeStep;
  if (selects<Rule>() && k < kSelectionPasses) {
    if (whole || stage == 2 * k) return runner.select(k, layout, totals_begin, whole);
    return stage == 2 * k + 1 ? runner.choose(k, layout, totals_begin) : cudaSuccess;
  }
  if (product_count<Rule>() > 0 && k < reduction_count<Rule>()) {
    const bool of_sums = k == 1;
    if (whole || stage == 2 * k) {
      if (!of_sums) return runner.reduce(k, layout, totals_begin, whole);
      return whole ? cudaSuccess : runner.finish_products(false, layout);  // a whole step has done it all
    }
    const bool last = k == reduction_count<Rule>() - 1;
    return stage == 2 * k + 1 && last ? runner.finish_products(true, layout) : cudaSuccess;
  }
  if (whole || stage == 2 * k) return runner.reduce(k, layout, totals_begin, whole);
  return stage == 2 * k + 1 ? runner.finalize(k, layout, totals_begin) : cudaSuccess;
}

template <class Rule>
cudaError_t run_rule(const StepCall& call, const Context& context) {
  const CommonArgs& common = call.common;
  const int reductions = reduction_count<Rule>(common.cautious);
  if constexpr (has_map<Rule>()) {
    if (common.perpendicular != nullptr) {
      const int first = 2 * reductions + 1;
      const bool mine = call.stage == kWholeStep || call.stage == first || call.stage == first + 1;
      const int stage = call.stage == kWholeStep ? kWholeStep : call.stage - first;
      const cudaError_t error = mine ? run_perpendicular(call, stage, context) : cudaSuccess;
      if (error != cudaSuccess) return error;
    }
  }
  Runner<Rule, float> single(call.tensors, common, context);
  Runner<Rule, double> twice(call.tensors, common, context);
  TotalsLayout layout;
  int64_t totals_begin = 0;
  cudaError_t error = cudaSuccess;
  for (int k = 0; k < reductions && error == cudaSuccess; ++k) {
    const Axis along = reduce_axis<Rule>(k, common.hypers);
    if (selects<Rule>() && k < kSelectionPasses && (call.stage == kWholeStep || call.stage == 2 * k)) {
      const size_t counts = call.tensors.size() * size_t(totals_width<Rule>(k));
      error = cudaMemsetAsync(common.totals + totals_begin, 0, counts * sizeof(double), context.stream);
      if (error != cudaSuccess) return error;
    }
    error = run_reduction(single, k, call.stage, layout, totals_begin);
    if (error == cudaSuccess) error = run_reduction(twice, k, call.stage, layout, totals_begin);
    layout.offset[k] = totals_begin;
    layout.per_tensor[k] = along == Axis::kTensor && totals_width<Rule>(k) == 1;
    layout.completed = k + 1;
    totals_begin += segment_total(call.tensors, along) * totals_width<Rule>(k);
  }
  if (error != cudaSuccess) return error;
  if (call.stage != kWholeStep && call.stage != 2 * reductions) return cudaSuccess;
  if constexpr (has_map<Rule>()) {
    error = single.map(layout);
    if (error == cudaSuccess) error = twice.map(layout);
  }
  return error;
}

}  // namespace momentum::cuda
