#include "torch/overlap.h"

#include <algorithm>

#include "torch/error.h"

namespace momentum::ops {
namespace {

bool same(const std::vector<MemoryRange>& a, const std::vector<MemoryRange>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const MemoryRange& x, const MemoryRange& y) {
           return x.begin == y.begin && x.end == y.end && x.written == y.written;
         });
}

std::string label(const MemoryRange& range) {
  return range.index < 0 ? range.argument : std::string(range.argument) + "[" + std::to_string(range.index) + "]";
}

}  // namespace

void OverlapCheck::check(const char* op) {
  thread_local std::vector<MemoryRange> passed;
  if (same(ranges_, passed)) return;
  std::vector<MemoryRange> sorted = ranges_;
  std::sort(sorted.begin(), sorted.end(), [](const MemoryRange& a, const MemoryRange& b) { return a.begin < b.begin; });
  // The range that reaches furthest among those before, and among the written ones before.
  const MemoryRange* any = nullptr;
  const MemoryRange* written = nullptr;
  for (const MemoryRange& range : sorted) {
    const MemoryRange* before = range.written ? any : written;
    if (before != nullptr && before->end > range.begin) {
      refuse(op, label(*before), " and ", label(range),
             " share memory; tensors that are written must not overlap any other argument");
    }
    if (any == nullptr || range.end > any->end) any = &range;
    if (range.written && (written == nullptr || range.end > written->end)) written = &range;
  }
  passed = std::move(ranges_);
}

}  // namespace momentum::ops
