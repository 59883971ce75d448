// The map of a call.
#pragma once

#include <vector>

#include "cuda/runner.h"

namespace momentum::cuda {

template <class Rule, class T>
cudaError_t Runner<Rule, T>::map(const TotalsLayout& layout) {
  // In double only one kernel exists: fewer binaries for a rare case.
  if constexpr (sizeof(T) == 4) {
    const MapKind kind = map_kind();
    if (kind == MapKind::kPlain) return map_tables<MapKind::kPlain>(layout);
    if (kind == MapKind::kBlocks) return map_tables<MapKind::kBlocks>(layout);
  }
  return map_tables<MapKind::kFull>(layout);
}

template <class Rule, class T>
template <MapKind kKind>
cudaError_t Runner<Rule, T>::map_tables(const TotalsLayout& layout) {
  if (mine_.empty()) return cudaSuccess;
  const std::vector<int64_t> segments = uses_segments<Rule>() ? first_segments() : std::vector<int64_t>();
  TableLaunch<Params<Rule, T, MapEntry<Rule, kKind>>> launch;
  start(launch.header(), layout);
  launch.reserve(mine_.size());
  int64_t maxima = 0;
  for (const uint32_t index : mine_) {
    auto& e = launch.add();
    if constexpr (kKind == MapKind::kBlocks) {
      e.maxima_begin = maxima;
      maxima += maxima_of(tensors_[index]);
    }
    fill(index, kKind == MapKind::kBlocks || common_.rounding == Rounding::kStochastic, e);
    if constexpr (uses_segments<Rule>()) e.segment_begin = segments[index];
    launch.add_chunks(e.numel > 0 ? (e.numel + e.shift + kChunk - 1) / kChunk : 0);
  }
  auto* arrivals = reinterpret_cast<uint32_t*>(common_.steps + tensors_.size());
  const auto run = [&] { return launch_tables<map_kernel<Rule, T, kKind>>(launch, context_, BlockPerChunk{1}, arrivals); };
  if (maxima > 0) {
    cudaError_t error = reserve_maxima(maxima, launch.header());
    launch.header().find_maxima = true;
    if (error == cudaSuccess) error = run();
    if (error != cudaSuccess) return error;
    launch.header().find_maxima = false;
  }
  return run();
}

}  // namespace momentum::cuda
