// The passes of a selection (core/selection.h) on the CPU: magnitudes are made in vectors, a tile at a time, and counted one by
// one.
#pragma once

#include "core/selection.h"
#include "cpu/products.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <class Rule, class T>
static void select_typed(const Task& task, int k, int64_t begin, int64_t end, uint64_t* counts) {
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  uint32_t digits = 0;
  if (k > 0) {
    digits = uint32_t(selection_result<Rule>(task.common->totals, *task.layout, k - 1, task.index)[kSelectedDigits]);
  }
  MeasureTile<Rule, T> tile(task, prepared, k);
  alignas(64) T values[kTile];
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    tile.fill(tile.open(i, n), i, 0, n, values);
    for (int v = 0; v < n; ++v) {
      const int bin = selection_bin(k, digits, selection_key(values[v]));
      if (bin >= 0) ++counts[bin];
    }
  }
}

template <class Rule>
static void select_task(const Task& task, int k, int64_t begin, int64_t end, uint64_t* counts) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    select_typed<Rule, double>(task, k, begin, end, counts);
  } else {
    select_typed<Rule, float>(task, k, begin, end, counts);
  }
}

template <class Rule>
static void choose_task(const Task& task, int k, double* counts) {
  const int bins = selection_bins(k);
  double digits = 0, rest = 0;
  if (k == 0) {
    for (int b = 0; b < bins; ++b) rest += counts[b];
    rest = Rule::selected(task.common->hypers, rest);
  } else {
    const double* before = selection_result<Rule>(task.common->totals, *task.layout, k - 1, task.index);
    digits = before[kSelectedDigits];
    rest = before[kSelectedRest];
  }
  const int bin = selection_search(bins, rest, [&](int b) { return counts[b]; });
  counts[bins + kSelectedDigits] = digits * bins + bin;
  counts[bins + kSelectedRest] = rest;
}

}  // namespace momentum::cpu::MOMENTUM_ISA
