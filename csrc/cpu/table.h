// Builds the function table of a rule for one instruction set.
#pragma once

#include "cpu/kernels.h"
#include "cpu/map.h"
#include "cpu/reduce.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <class Rule>
static void constants_of(const CommonArgs& common, ConstantsStorage* two) {
  using Single = typename Rule::template Constants<float>;
  using Double = typename Rule::template Constants<double>;
  static_assert(sizeof(Single) <= kConstantsSize && sizeof(Double) <= kConstantsSize);
  static_assert(hyper_count<Rule>() <= kMaxHypers && reduction_count<Rule>() < kMaxReductions);
  *reinterpret_cast<Single*>(two[0].bytes) = make_constants<Rule, float>(common);
  *reinterpret_cast<Double*>(two[1].bytes) = make_constants<Rule, double>(common);
}

template <class Rule>
static ReduceOp reduce_op_of(int k, const double* hypers) {
  return reduce_op<Rule>(k, hypers);
}

template <class Rule>
static Axis reduce_axis_of(int k, const double* hypers) {
  return reduce_axis<Rule>(k, hypers);
}

template <class Rule>
constexpr Kernels make_kernels() {
  return {constants_of<Rule>,  map_task<Rule>,     maxima_task<Rule>,    reduce_task<Rule>,      reduce_columns_task<Rule>,
          finalize_task<Rule>, reduce_op_of<Rule>, reduce_axis_of<Rule>, reduction_count<Rule>()};
}

// Defined for each rule by the translation unit generated from rule.cpp.in.
template <class Rule>
const Kernels& kernels();

}  // namespace momentum::cpu::MOMENTUM_ISA
