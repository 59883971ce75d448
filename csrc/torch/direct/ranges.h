// Work over many tensors, shared by torch's threads. The interpreter stays with the caller, so none of it may use Python.
#pragma once

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <cstdint>

#include "torch/backend.h"
#include "torch/direct/objects.h"

namespace momentum::ops::direct {

// Of each list: what one thread does in a few times what it takes to call another.
inline constexpr int64_t kTensorsPerThread = 128;

// Calls `range(begin, end)` for ranges that cover 0 .. count, by torch's threads where there is enough to do for several.
// Throws Declined where one of several threw.
template <class Range>
void in_ranges(int64_t count, const Range& range) {
  if (!backend::kOnCpu || count <= kTensorsPerThread) return range(0, count);
  struct Shared {
    const Range& call;
    std::atomic<bool> failed;
  } shared{range, false};
  const auto share = [](int64_t begin, int64_t end, void* context) {
    auto& [call, failed] = *static_cast<Shared*>(context);
    try {
      call(begin, end);
    } catch (...) {
      failed = true;
    }
  };
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, kTensorsPerThread, share, &shared));
  if (shared.failed) throw Declined{};
}

}  // namespace momentum::ops::direct
