// The reductions of a call, the sums of products among them, and what is made of totals that several processes complete
// together.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/products.h"
#include "cuda/runner.h"

namespace momentum::cuda {

template <class Rule, class T>
cudaError_t Runner<Rule, T>::reduce(int k, const TotalsLayout& layout, int64_t totals_begin, bool finalize) {
  if (mine_.empty()) return cudaSuccess;
  const Axis along = reduce_axis<Rule>(k, common_.hypers);

  // Pieces of one tensor: how many blocks, partial totals and arrival counters it takes.
  struct Plan {
    int64_t chunks, partials, tickets;
  };
  const bool products = product_count<Rule>() > 0 && k == 0;
  const int width = totals_width<Rule>(k);
  const auto plan_of = [&](const TensorArgs& t) -> Plan {
    if (along == Axis::kColumn) {
      const int64_t row_blocks = t.rows > kColumnRows ? (t.rows + kColumnRows - 1) / kColumnRows : 1;
      const int64_t column_blocks = (t.cols + kThreads - 1) / kThreads;
      return {row_blocks * column_blocks, row_blocks > 1 ? row_blocks * t.cols : 0, row_blocks > 1 ? column_blocks : 0};
    }
    const int64_t segments = along == Axis::kRow ? t.rows : 1, length = along == Axis::kRow ? t.cols : t.numel;
    const int64_t own = products && sum_count<Rule>() > 0 ? 1 : 0;  // counts the blocks of the tensor
    if (segments > 1 && length <= kWarpSegment) return {(segments + kWarps - 1) / kWarps, 0, own};
    const int64_t pieces = length > kReduceRange ? (length + kReduceRange - 1) / kReduceRange : 1;
    return {segments * pieces, pieces > 1 ? segments * pieces * width : 0, (pieces > 1 ? segments : 0) + own};
  };

  int64_t partials = 0, tickets = 0;
  for (const uint32_t index : mine_) {
    const Plan plan = plan_of(tensors_[index]);
    partials += plan.partials;
    tickets += plan.tickets;
  }
  TableLaunch<ReduceParams> launch;
  auto& header = launch.header();
  start(header, layout);
  header.reduction = k;
  header.axis = along;
  header.finalize = finalize;
  if (partials > 0) {
    header.partials = static_cast<double*>(context_.allocate(size_t(partials) * sizeof(double), context_.owner));
  }
  if (tickets > 0) {
    if (const cudaError_t error = reserve_tickets(size_t(tickets), header); error != cudaSuccess) return error;
  }

  std::vector<int64_t> totals(1, totals_begin);
  for (const TensorArgs& t : tensors_) totals.push_back(totals.back() + segment_count(t, along));
  const std::vector<int64_t> segments = product_count<Rule>() > 0 ? first_segments() : std::vector<int64_t>();
  int64_t partial = 0, ticket = 0;
  launch.reserve(mine_.size());
  for (const uint32_t index : mine_) {
    const Plan plan = plan_of(tensors_[index]);
    auto& e = launch.add();
    fill(index, true, e);
    if constexpr (product_count<Rule>() > 0) {
      fill_products(index, segments, e);
      e.chunks = plan.chunks;
    }
    if (!products) e.total_begin = totals[index];
    e.partial_begin = partial;
    e.ticket_begin = ticket;
    launch.add_chunks(plan.chunks);
    partial += plan.partials;
    ticket += plan.tickets;
  }

  if constexpr (product_count<Rule>() > 0) {
    if (products) return launch_tables<products_kernel<Rule, T>>(launch, context_, BlockPerChunk{});
  } else if constexpr (uses_segments<Rule>()) {
    if (along == Axis::kColumn) return launch_tables<reduce_columns_kernel<Rule, T>>(launch, context_, BlockPerChunk{});
  }
  // What is left for a rule with products is the count of the cautious mask.
  if constexpr (product_count<Rule>() == 0 || has_map<Rule>()) {
    return launch_tables<reduce_kernel<Rule, T>>(launch, context_, BlockPerChunk{});
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::finish_products(bool settles, const TotalsLayout& layout) {
  if constexpr (product_count<Rule>() > 0) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.finalize = settles;
    launch.reserve(mine_.size());
    const std::vector<int64_t> segments = first_segments();
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      fill_products(index, segments, e);
    }
    return launch_tables<finish_products_kernel<Rule, T>>(
        launch, context_, [](const auto& header, unsigned resident) { return std::min(header.entries, resident); });
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::finalize(int k, const TotalsLayout& layout, int64_t totals_begin) {
  if constexpr (scalar_count<Rule>() > 0) {
    if (mine_.empty() || k >= reduction_count<Rule>()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    header.finalize = true;
    launch.reserve(mine_.size());
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      e.total_begin = totals_begin + index;
    }
    return launch_tables<finalize_kernel<Rule, T>>(
        launch, context_, [](const auto& header, unsigned) { return (header.entries + kThreads - 1) / kThreads; });
  }
  return cudaSuccess;
}

}  // namespace momentum::cuda
