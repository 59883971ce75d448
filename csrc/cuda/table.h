// The tensor table of a launch, and how a block takes an entry from it.
//
// A table that fits travels in the 32 KB of the launch's parameters. A longer one is kept in device memory from step to step
// ("resident"), and the parameters carry what changes between steps: the gradients' addresses and the distinct pairs of
// learning rate and weight decay. Either way a list of up to 4096 tensors is one launch.
#pragma once

#include "cuda/blocks.h"
#include "cuda/entry.h"
#include "cuda/simt.h"

namespace momentum::cuda {

inline constexpr int kParameterBytes = 32764;  // what CUDA grants from 12.1 on
inline constexpr uint32_t kResidentEntries = 4096;
inline constexpr uint32_t kResidentRates = 64;
inline constexpr uint32_t kSampleStride = 32;  // one lane each looks at the entries between two samples

template <class Rule, class T>
struct Header {
  CommonArgs common;
  TotalsLayout layout;
  typename Rule::template Constants<T> constants;
  BlockCodec codecs[state_count<Rule>() > 0 ? state_count<Rule>() : 1];  // of quantised states
  const void* resident;                                                  // the table in device memory, or null
  uint32_t chunks;                                                       // of this launch
  uint32_t entries;
  // States with the scales of a matrix: their maxima are found by a launch of their own, without storing, before the map.
  float* maxima;
  bool find_maxima;
  // Reductions, and `tickets` for each tensor of a map with maxima.
  int reduction;
  Axis axis;
  bool finalize;
  double* partials;
  uint32_t* tickets;
};

// What the parameters carry beside a resident table. Addresses have 48 bits.
struct ResidentPart {
  double rates[kResidentRates][2];
  uint32_t samples[kResidentEntries / kSampleStride];  // first_chunk of every kSampleStride-th entry
  uint32_t grad_low[kResidentEntries];
  uint16_t grad_high[kResidentEntries];

  __host__ __device__ const void* grad(uint32_t entry) const {
    return reinterpret_cast<const void*>(uintptr_t(grad_low[entry]) | (uintptr_t(grad_high[entry]) << 32));
  }
};

template <class Rule, class T, class EntryType>
struct Params {
  using Entry = EntryType;
  static constexpr int kCapacity = (kParameterBytes - int(sizeof(Header<Rule, T>)) - 16) / int(sizeof(EntryType));
  Header<Rule, T> header;
  union {
    EntryType table[kCapacity];
    ResidentPart part;
  };
};

template <class ParamsType>
__device__ __forceinline__ const typename ParamsType::Entry& entry_of(const ParamsType& params, uint32_t i) {
  if (params.header.resident != nullptr) return static_cast<const typename ParamsType::Entry*>(params.header.resident)[i];
  return params.table[i];
}

// The last of count numbers, ascending from `at(0)`, that is not above `chunk`.
template <class At>
__device__ __forceinline__ uint32_t last_not_above(uint32_t count, uint32_t chunk, At&& at) {
  uint32_t low = 0, high = count;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (at(middle) <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// The tensor a chunk belongs to: the last entry that starts at or before it. All threads of the block take part.
template <class ParamsType>
__device__ __forceinline__ uint32_t find_entry(const ParamsType& params, uint32_t chunk) {
  const uint32_t entries = params.header.entries;
  if (params.header.resident == nullptr) {
    return last_not_above(entries, chunk, [&](uint32_t i) { return params.table[i].first_chunk; });
  }
  const uint32_t samples = (entries + kSampleStride - 1) / kSampleStride;
  const uint32_t base = kSampleStride * last_not_above(samples, chunk, [&](uint32_t i) { return params.part.samples[i]; });
  const uint32_t mine = base + threadIdx.x % 32;
  const bool before = mine < entries && entry_of(params, mine).first_chunk <= chunk;
  return base + uint32_t(__popc(__ballot_sync(0xffffffffu, before))) - 1;
}

// Copies entry i into shared memory, complete with the numbers that a resident table leaves out.
template <class ParamsType>
__device__ __forceinline__ void stage_entry(const ParamsType& params, uint32_t i, typename ParamsType::Entry& staged) {
  using Entry = typename ParamsType::Entry;
  static_assert(sizeof(Entry) % sizeof(uint64_t) == 0 && sizeof(Entry) / sizeof(uint64_t) <= kThreads);
  __syncthreads();  // the entry before is no longer in use
  if (threadIdx.x < sizeof(Entry) / sizeof(uint64_t)) {
    const auto* words = reinterpret_cast<const uint64_t*>(&entry_of(params, i));
    reinterpret_cast<uint64_t*>(&staged)[threadIdx.x] = words[threadIdx.x];
  }
  __syncthreads();
  if (params.header.resident == nullptr) return;
  if (threadIdx.x == 0) {
    const auto pair = uint32_t(staged.lr);
    staged.grad = params.part.grad(i);
    staged.lr = params.part.rates[pair][0];
    staged.weight_decay = params.part.rates[pair][1];
  }
  __syncthreads();
}

template <class Rule, class T, class ParamsType>
__device__ __forceinline__ typename Rule::template Constants<T> constants_of(const ParamsType& params) {
  if (params.header.common.device_hypers) return make_constants<Rule, T>(params.header.common);
  return params.header.constants;
}

// One more of `pieces` is done; true in all threads of the block that completes them.
__device__ __forceinline__ bool arrive(uint32_t* ticket, uint32_t pieces) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == pieces - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace momentum::cuda
