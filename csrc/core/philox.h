// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words from a counter and
// a key, with no state. One implementation for CPU and GPU; cpu/random.isa.cpp has it for vectors of counters.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace momentum {

struct PhiloxWords {
  uint32_t word[4];
};

namespace philox {
inline constexpr int kRounds = 10;
inline constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
}  // namespace philox

MOMENTUM_HD PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  MOMENTUM_UNROLL
  for (int round = 0; round < philox::kRounds; ++round) {
    const uint64_t product0 = uint64_t(philox::kMultiplier0) * counter.word[0];
    const uint64_t product1 = uint64_t(philox::kMultiplier1) * counter.word[2];
    counter = {{uint32_t(product1 >> 32) ^ counter.word[1] ^ key0, uint32_t(product1),
                uint32_t(product0 >> 32) ^ counter.word[3] ^ key1, uint32_t(product0)}};
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  return counter;
}

// The words that belong to elements 4q .. 4q+3 of a tensor at a given step: element i uses word i % 4 of group i / 4. The
// element index is that of the whole tensor, so the bits do not depend on how it is sharded, batched or aligned.
MOMENTUM_HD PhiloxWords philox_group(uint64_t seed, uint32_t step, uint64_t group) {
  return philox4x32_10({{uint32_t(group), uint32_t(group >> 32), step, 0u}}, uint32_t(seed), uint32_t(seed >> 32));
}

MOMENTUM_HD uint32_t philox_word(uint64_t seed, uint32_t step, uint64_t element) {
  return philox_group(seed, step, element >> 2).word[element & 3];
}

}  // namespace momentum
