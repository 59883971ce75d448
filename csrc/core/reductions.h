// Which reductions a call runs and where their totals lie.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "core/rule.h"
#include "core/selection.h"

namespace momentum {

// The rule's own reductions, then the count of the cautious mask when its update is rescaled.
template <class Rule>
constexpr int reduction_count(Cautious cautious) {
  return reduction_count<Rule>() + (cautious == Cautious::kRescaled ? 1 : 0);
}

template <class Rule>
MOMENTUM_HD ReduceOp reduce_op(int k, const double* hypers) {
  if constexpr (reduction_count<Rule>() > 0 && product_count<Rule>() == 0) {
    if (k < reduction_count<Rule>()) return Rule::reduce_op(k, hypers);
  }
  return ReduceOp::kSum;
}

template <class Rule>
MOMENTUM_HD Axis reduce_axis(int k, const double* hypers) {
  if constexpr (uses_segments<Rule>()) {
    if (k < (product_count<Rule>() > 0 ? 1 : reduction_count<Rule>())) return Rule::segment_axis(hypers);
  }
  return Axis::kTensor;
}

// How many numbers reduction k makes for a segment.
template <class Rule>
MOMENTUM_HD constexpr int totals_width(int k) {
  if (selects<Rule>() && k < kSelectionPasses) return selection_width(k);
  if (product_count<Rule>() > 0 && k == 0) return product_count<Rule>();
  return sum_count<Rule>() > 0 && k == 1 ? sum_count<Rule>() : 1;
}

inline int64_t segment_count(const TensorArgs& tensor, Axis axis) {
  return axis == Axis::kTensor ? 1 : axis == Axis::kRow ? tensor.rows : tensor.cols;
}

// Totals are stored reduction by reduction, tensor by tensor, segment by segment.
inline int64_t segment_total(const TensorArgsVector& tensors, Axis axis) {
  int64_t count = 0;
  for (const TensorArgs& tensor : tensors) count += segment_count(tensor, axis);
  return count;
}

// How many numbers the reductions of a call make.
template <class Rule>
int64_t total_count(const TensorArgsVector& tensors, const CommonArgs& common) {
  int64_t count = 0;
  for (int k = 0; k < reduction_count<Rule>(common.cautious); ++k) {
    count += segment_total(tensors, reduce_axis<Rule>(k, common.hypers)) * totals_width<Rule>(k);
  }
  return count;
}

// One element of reduction k. `total` matters where has_segment_values.
template <class Rule, class T>
MOMENTUM_HD T measure(int k, const Frame<T>& f, const typename Rule::template Scalars<T>& s, T g, T p, const T* x,
                      T total = T(1)) {
  if constexpr (reduction_count<Rule>() > 0 && product_count<Rule>() == 0) {
    if (k < reduction_count<Rule>()) return Rule::template measure<T>(k, s, effective_gradient(f, g, p), p, x);
  }
  if constexpr (has_map<Rule>()) {
    return cautious_count<Rule, T>(f, s, g, p, x, total);
  } else {
    return T(0);
  }
}

// One element, or a vector V of them, of the pass that makes several sums; Wide holds as many doubles.
template <class Rule, class T, class V, class Wide>
MOMENTUM_HD void products(const Frame<T>& f, const typename Rule::template Scalars<T>& s, V g, V p, const V* x, Wide* out) {
  Rule::template products<T>(s, effective_gradient(f, g, p), p, x, out);
}

template <class Rule, class T>
MOMENTUM_HD void settle(const typename Rule::template Constants<T>& c, const TensorContext<T>& context, double* sums) {
  if constexpr (requires { Rule::template settle<T>(c, context, sums); }) Rule::template settle<T>(c, context, sums);
}

template <class Rule, class T>
MOMENTUM_HD void finalize(int k, const typename Rule::template Constants<T>& c, const TensorContext<T>& context, double total,
                          float* scalars) {
  if constexpr (scalar_count<Rule>() > 0 && reduction_count<Rule>() > 0 && product_count<Rule>() == 0) {
    if (k < reduction_count<Rule>()) Rule::template finalize<T>(k, c, context, total, scalars);
  }
}

}  // namespace momentum
