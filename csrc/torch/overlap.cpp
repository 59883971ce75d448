#include "torch/overlap.h"

#include <algorithm>
#include <string>

#include "torch/error.h"

namespace momentum::ops {
namespace {

std::string label(const MemoryRange& range) {
  return range.index < 0 ? range.argument : std::string(range.argument) + "[" + std::to_string(range.index) + "]";
}

void check_ranges(const char* op, MemoryRanges ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const MemoryRange& a, const MemoryRange& b) { return a.begin < b.begin; });
  // The range that reaches furthest among those before, and among the written ones before.
  const MemoryRange* any = nullptr;
  const MemoryRange* written = nullptr;
  for (const MemoryRange& range : ranges) {
    const MemoryRange* before = range.written ? any : written;
    if (before != nullptr && before->end > range.begin) {
      refuse(op, label(*before), " and ", label(range),
             " share memory; tensors that are written must not overlap any other argument");
    }
    if (any == nullptr || range.end > any->end) any = &range;
    if (range.written && (written == nullptr || range.end > written->end)) written = &range;
  }
}

}  // namespace

void OverlapCheck::check(const char* op) {
  thread_local MemoryRanges passed;
  const auto like = [](const MemoryRange& a, const MemoryRange& b) { return a.is_like(b); };
  if (std::equal(ranges_.begin(), ranges_.end(), passed.begin(), passed.end(), like)) return;
  check_ranges(op, ranges_);
  passed = std::move(ranges_);
}

OverlapParts::Passed& OverlapParts::last_passed(const void* first) {
  constexpr size_t kCalls = 64;
  thread_local std::map<const void*, Passed> passed;
  const auto known = passed.find(first);
  if (known != passed.end()) return known->second;
  if (passed.size() == kCalls) passed.clear();
  return passed[first];
}

void OverlapParts::check(const char* op) {
  const auto is_as_expected = [](const auto& part) { return part.second.is_as_expected(); };
  if (parts_.size() == passed_.size() && std::all_of(parts_.begin(), parts_.end(), is_as_expected)) return;
  Passed found;
  MemoryRanges all;
  for (auto& [begin, part] : parts_) {
    const MemoryRanges& ranges = found[begin] = part.take();
    all.insert(all.end(), ranges.begin(), ranges.end());
  }
  check_ranges(op, std::move(all));
  passed_ = std::move(found);
}

}  // namespace momentum::ops
