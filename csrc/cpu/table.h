// Builds the function table of a rule for one instruction set.
#pragma once

#include "cpu/kernels.h"
#include "cpu/map.h"
#include "cpu/products.h"
#include "cpu/reduce.h"
#include "cpu/select.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <class Rule>
static void constants_of(const CommonArgs& common, ConstantsStorage* two) {
  using Single = typename Rule::template Constants<float>;
  using Double = typename Rule::template Constants<double>;
  static_assert(sizeof(Single) <= kConstantsSize && sizeof(Double) <= kConstantsSize);
  static_assert(hyper_count<Rule>() <= kMaxHypers && reduction_count<Rule>() < kMaxReductions);
  static_assert(product_count<Rule>() <= kMaxSums && sum_count<Rule>() <= kMaxSums);
  static_assert(has_segment_values<Rule>() == (sum_count<Rule>() > 0), "products of rows are summed for the tensor");
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
static int width_of(int k) {
  return totals_width<Rule>(k);
}

template <class Rule>
constexpr Kernels make_kernels() {
  Kernels table{};
  table.constants = constants_of<Rule>;
  if constexpr (has_map<Rule>()) {
    table.map = map_task<Rule>;
    table.maxima = maxima_task<Rule>;
  }
  if constexpr (has_map<Rule>() || product_count<Rule>() == 0) table.reduce = reduce_task<Rule>;
  if constexpr (product_count<Rule>() > 0) {
    table.products = products_task<Rule>;
    table.settle = settle_task<Rule>;
    if constexpr (sum_count<Rule>() > 0) table.summarize = summarize_task<Rule>;
  } else if constexpr (selects<Rule>()) {
    table.select = select_task<Rule>;
    table.choose = choose_task<Rule>;
  } else {
    table.reduce_columns = reduce_columns_task<Rule>;
    table.finalize = finalize_task<Rule>;
  }
  table.reduce_op = reduce_op_of<Rule>;
  table.reduce_axis = reduce_axis_of<Rule>;
  table.width = width_of<Rule>;
  table.reductions = reduction_count<Rule>();
  return table;
}

// Defined for each rule by the translation unit generated from rule.cpp.in.
template <class Rule>
const Kernels& kernels();

}  // namespace momentum::cpu::MOMENTUM_ISA
