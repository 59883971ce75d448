// Refuses calls in which a tensor that is written shares memory with another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace momentum::ops {

struct MemoryRange {
  uintptr_t begin, end;
  const char* argument;
  int32_t index;
  bool written;
};

// Collects the ranges of a call and checks them at the end. A step usually touches the same memory as the one before: a list
// equal to the last one that passed on this thread is not sorted again.
class OverlapCheck {
 public:
  void add(const void* data, int64_t bytes, const char* argument, int64_t index, bool written) {
    if (bytes == 0) return;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    ranges_.push_back({begin, begin + uintptr_t(bytes), argument, int32_t(index), written});
  }
  // What another has collected.
  void add(const OverlapCheck& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }
  void reserve(size_t count) { ranges_.reserve(count); }
  void check(const char* op);

 private:
  std::vector<MemoryRange> ranges_;
};

// What several threads have collected about ranges of tensors, brought into the order of the tensors.
class OverlapParts {
 public:
  // `begin`: the first of the range.
  void add(size_t begin, OverlapCheck&& part) {
    const std::lock_guard lock(mutex_);
    parts_[begin] = std::move(part);
  }
  OverlapCheck join() {
    OverlapCheck whole;
    for (auto& [begin, part] : parts_) {
      if (begin == 0) {
        whole = std::move(part);
      } else {
        whole.add(part);
      }
    }
    return whole;
  }

 private:
  std::mutex mutex_;
  std::map<size_t, OverlapCheck> parts_;
};

}  // namespace momentum::ops
