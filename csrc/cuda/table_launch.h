// Fills tables and launches kernels with them: in as few launches as the parameters allow.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/resident.h"
#include "cuda/table.h"

namespace momentum::cuda {

template <class ParamsType>
class TableLaunch {
 public:
  using Entry = typename ParamsType::Entry;
  static_assert(sizeof(ParamsType) <= kParameterBytes && sizeof(ResidentPart) <= sizeof(Entry) * ParamsType::kCapacity);

  // All that a launch needs but the table.
  decltype(ParamsType::header)& header() { return params_->header; }

  void reserve(size_t count) { entries_.reserve(count); }

  // A cleared entry, whose work is chunks [first, first + chunks) of the launch.
  Entry& add() {
    entries_.emplace_back();
    std::memset(static_cast<void*>(&entries_.back()), 0, sizeof(Entry));  // padding too: resident tables are compared bytewise
    entries_.back().first_chunk = chunks_;
    return entries_.back();
  }
  void add_chunks(int64_t count) { chunks_ += uint32_t(count); }

  bool empty() const { return entries_.empty(); }
  uint32_t chunks() const { return chunks_; }

  // Calls go(params) for every launch the table takes. `user` names the kernel.
  template <class Go>
  cudaError_t run(const void* user, const Context& context, Go&& go) {
    const size_t count = entries_.size();
    if (count > size_t(ParamsType::kCapacity) && context.reserve != nullptr && !is_capturing(context.stream)) {
      bool complete = true;
      for (size_t begin = 0; begin < count && complete; begin += kResidentEntries) {
        const cudaError_t error = run_resident(user, begin, std::min(count, begin + kResidentEntries), context, go, &complete);
        if (error != cudaSuccess) return error;
        if (!complete) return run_inline(begin, context, go);
      }
      return cudaSuccess;
    }
    return run_inline(0, context, go);
  }

 private:
  uint32_t chunks_before(size_t entry) const { return entry < entries_.size() ? entries_[entry].first_chunk : chunks_; }

  template <class Go>
  cudaError_t run_inline(size_t begin, const Context&, Go&& go) {
    auto& header = params_->header;
    header.resident = nullptr;
    for (; begin < entries_.size(); begin += ParamsType::kCapacity) {
      const size_t end = std::min(entries_.size(), begin + ParamsType::kCapacity);
      const uint32_t base = entries_[begin].first_chunk;
      for (size_t i = begin; i < end; ++i) {
        params_->table[i - begin] = entries_[i];
        params_->table[i - begin].first_chunk -= base;
      }
      header.entries = uint32_t(end - begin);
      header.chunks = chunks_before(end) - base;
      if (const cudaError_t error = go(*params_); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }

  // Does nothing and clears `complete` where the pairs of rates are too many or an address too long.
  template <class Go>
  cudaError_t run_resident(const void* user, size_t begin, size_t end, const Context& context, Go&& go, bool* complete) {
    std::vector<Entry> table(entries_.begin() + long(begin), entries_.begin() + long(end));
    const uint32_t base = table.front().first_chunk;
    ResidentPart& part = params_->part;
    uint32_t rates = 0, pair = 0;
    for (uint32_t i = 0; i < table.size(); ++i) {
      Entry& e = table[i];
      const auto is_pair = [&](uint32_t r) { return part.rates[r][0] == e.lr && part.rates[r][1] == e.weight_decay; };
      if (rates == 0 || !is_pair(pair)) {
        for (pair = 0; pair < rates && !is_pair(pair);) ++pair;
      }
      const auto address = reinterpret_cast<uintptr_t>(e.grad);
      if (pair == kResidentRates || address >> 48 != 0) {
        *complete = false;
        return cudaSuccess;
      }
      if (pair == rates) {
        part.rates[pair][0] = e.lr;
        part.rates[pair][1] = e.weight_decay;
        ++rates;
      }
      part.grad_low[i] = uint32_t(address);
      part.grad_high[i] = uint16_t(address >> 32);
      e.grad = nullptr;
      e.lr = pair;
      e.weight_decay = 0;
      e.first_chunk -= base;
      if (i % kSampleStride == 0) part.samples[i / kSampleStride] = e.first_chunk;
    }
    auto& header = params_->header;
    header.entries = uint32_t(table.size());
    header.chunks = chunks_before(end) - base;
    const size_t bytes = table.size() * sizeof(Entry);
    const cudaError_t error = resident_table(user, table.data(), bytes, context, &header.resident);
    return error != cudaSuccess ? error : go(*params_);
  }

  std::unique_ptr<ParamsType> params_ = std::make_unique<ParamsType>();
  std::vector<Entry> entries_;
  uint32_t chunks_ = 0;
};

}  // namespace momentum::cuda
