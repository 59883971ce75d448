// Which reductions a call runs and where their totals lie.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "core/rule.h"

namespace momentum {

// The rule's own reductions, then the count of the cautious mask when its update is rescaled.
template <class Rule>
constexpr int reduction_count(Cautious cautious) {
  return reduction_count<Rule>() + (cautious == Cautious::kRescaled ? 1 : 0);
}

template <class Rule>
MOMENTUM_HD ReduceOp reduce_op(int k, const double* hypers) {
  if constexpr (reduction_count<Rule>() > 0) {
    if (k < reduction_count<Rule>()) return Rule::reduce_op(k, hypers);
  }
  return ReduceOp::kSum;
}

template <class Rule>
MOMENTUM_HD Axis reduce_axis(int k, const double* hypers) {
  if constexpr (uses_segments<Rule>()) {
    if (k < reduction_count<Rule>()) return Rule::segment_axis(hypers);
  }
  return Axis::kTensor;
}

inline int64_t segment_count(const TensorArgs& tensor, Axis axis) {
  return axis == Axis::kTensor ? 1 : axis == Axis::kRow ? tensor.rows : tensor.cols;
}

// Totals are stored reduction by reduction, tensor by tensor, segment by segment.
inline int64_t segment_total(const std::vector<TensorArgs>& tensors, Axis axis) {
  int64_t count = 0;
  for (const TensorArgs& tensor : tensors) count += segment_count(tensor, axis);
  return count;
}

// One element of reduction k.
template <class Rule, class T>
MOMENTUM_HD T measure(int k, const Frame<T>& f, const typename Rule::template Scalars<T>& s, T g, T p, const T* x) {
  if constexpr (reduction_count<Rule>() > 0) {
    if (k < reduction_count<Rule>()) return Rule::template measure<T>(k, s, effective_gradient(f, g, p), p, x);
  }
  return cautious_count<Rule, T>(f, s, g, p, x);
}

template <class Rule, class T>
MOMENTUM_HD void finalize(int k, const typename Rule::template Constants<T>& c, const TensorContext<T>& context, double total,
                          float* scalars) {
  if constexpr (scalar_count<Rule>() > 0 && reduction_count<Rule>() > 0) {
    if (k < reduction_count<Rule>()) Rule::template finalize<T>(k, c, context, total, scalars);
  }
}

}  // namespace momentum
