// A list of tensors cut into pieces for threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/driver.h"

namespace momentum::cpu {

// Calls go(index, begin, end) for pieces of the tensors, whose sizes are given, in parallel. Pieces begin at multiples of 4096.
template <class Go>
void over_pieces(const std::vector<int64_t>& sizes, ParallelFor parallel_for, Go&& go) {
  constexpr int64_t kUnit = 4096, kGrain = 16;
  std::vector<int64_t> units(1, 0);
  for (const int64_t size : sizes) units.push_back(units.back() + (size + kUnit - 1) / kUnit);
  if (units.back() == 0) return;
  auto body = [&](int64_t begin, int64_t end) {
    auto i = std::size_t(std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1);
    for (int64_t unit = begin; unit < end; ++i) {
      const int64_t last = std::min(end, units[i + 1]), first = units[i];
      if (unit < last) go(int64_t(i), (unit - first) * kUnit, std::min((last - first) * kUnit, sizes[i]));
      unit = last;
    }
  };
  parallel_for(
      0, units.back(), kGrain,
      [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); }, &body);
}

}  // namespace momentum::cpu
