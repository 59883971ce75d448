// The passes of a call that find the k-th largest magnitude of each tensor.
#pragma once

#include "cuda/runner.h"
#include "cuda/select.h"

namespace momentum::cuda {

template <class Rule, class T>
cudaError_t Runner<Rule, T>::select(int k, const TotalsLayout& layout, int64_t totals_begin, bool chooses) {
  if constexpr (selects<Rule>()) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    header.finalize = chooses;
    if (const cudaError_t error = reserve_tickets(mine_.size(), header); error != cudaSuccess) return error;
    launch.reserve(mine_.size());
    for (size_t place = 0; place < mine_.size(); ++place) {
      auto& e = launch.add();
      fill(mine_[place], true, e);
      e.total_begin = totals_begin + int64_t(mine_[place]) * selection_width(k);
      e.ticket_begin = int64_t(place);
      launch.add_chunks(selection_chunks(e.numel));
    }
    return launch_tables<select_kernel<Rule, T>>(launch, context_, BlockPerChunk{});
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::choose(int k, const TotalsLayout& layout, int64_t totals_begin) {
  if constexpr (selects<Rule>()) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    launch.reserve(mine_.size());
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      e.total_begin = totals_begin + int64_t(index) * selection_width(k);
    }
    return launch_tables<choose_kernel<Rule, T>>(launch, context_, [](const auto& header, unsigned) { return header.entries; });
  }
  return cudaSuccess;
}

}  // namespace momentum::cuda
