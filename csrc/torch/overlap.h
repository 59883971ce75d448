// Refuses calls in which a tensor that is written shares memory with another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace momentum::ops {

struct MemoryRange {
  uintptr_t begin, end;
  const char* argument;
  int32_t index;
  bool written;

  bool is_like(const MemoryRange& other) const { return begin == other.begin && end == other.end && written == other.written; }
};
using MemoryRanges = std::vector<MemoryRange>;

// Collects the ranges of a call and checks them at the end. A step usually touches the same memory as the one before: ranges
// equal to the last ones that passed on this thread are not sorted again.
class OverlapCheck {
 public:
  OverlapCheck() = default;
  // Of ranges that will probably be like those; as long as they are, none are kept.
  explicit OverlapCheck(const MemoryRanges& expected) : expected_(&expected) {}

  void add(const void* data, int64_t bytes, const char* argument, int64_t index, bool written) {
    if (bytes == 0) return;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    const MemoryRange range{begin, begin + uintptr_t(bytes), argument, int32_t(index), written};
    if (expected_ != nullptr) {
      if (met_ < expected_->size() && (*expected_)[met_].is_like(range)) {
        ++met_;
        return;
      }
      keep();
    }
    ranges_.push_back(range);
  }

  void check(const char* op);

  // Whether all that were expected came, and no other.
  bool is_as_expected() const { return expected_ != nullptr && met_ == expected_->size(); }
  MemoryRanges take() {
    if (expected_ != nullptr) keep();
    return std::move(ranges_);
  }

 private:
  // What was only compared so far.
  void keep() {
    ranges_.assign(expected_->begin(), expected_->begin() + ptrdiff_t(met_));
    expected_ = nullptr;
  }

  const MemoryRanges* expected_ = nullptr;
  size_t met_ = 0;
  MemoryRanges ranges_;
};

// The ranges of one call, collected by several threads. What passed is remembered for each of some calls, told apart by the
// memory of their first tensor.
class OverlapParts {
 public:
  explicit OverlapParts(const void* first) : passed_(last_passed(first)) {}

  // For the ranges of the tensors from `begin` on; to be given to `add`.
  OverlapCheck part(size_t begin) const {
    const auto expected = passed_.find(begin);
    return expected == passed_.end() ? OverlapCheck() : OverlapCheck(expected->second);
  }
  void add(size_t begin, OverlapCheck&& part) {
    const std::lock_guard lock(mutex_);
    parts_.emplace_back(begin, std::move(part));
  }

  // For ranges that belong to no tensor of the lists.
  static constexpr size_t kOther = SIZE_MAX;

  void check(const char* op);

 private:
  using Passed = std::map<size_t, MemoryRanges>;
  // The parts of the last call with this first tensor, on this thread, that passed.
  static Passed& last_passed(const void* first);

  Passed& passed_;
  std::mutex mutex_;
  std::vector<std::pair<size_t, OverlapCheck>> parts_;
};

}  // namespace momentum::ops
