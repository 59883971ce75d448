// What tests set and read, exported with C linkage so that ctypes can call it.
#pragma once

#include <cstdint>

#include "launch.h"

extern "C" {

// Order of threads and of blocks from now on: 0 forward, 1 reverse, 2 permuted by the seed.
[[gnu::visibility("default")]] void momentum_emulator_set_order(int order, std::uint64_t seed);

// Streaming multiprocessors of the device (4 at first).
[[gnu::visibility("default")]] void momentum_emulator_set_multiprocessors(int count);

// What cudaStreamIsCapturing says of every stream.
[[gnu::visibility("default")]] void momentum_emulator_set_capturing(int capturing);

// Since the last reset: launches, blocks run, bytes of kernel parameters handed over, and how often the host waited for the
// device: synchronisations, copies that are not asynchronous or go to the host, and memory freed outside of a stream.
[[gnu::visibility("default")]] void momentum_emulator_reset_counters();
[[gnu::visibility("default")]] std::int64_t momentum_emulator_launches();
[[gnu::visibility("default")]] std::int64_t momentum_emulator_blocks();
[[gnu::visibility("default")]] std::int64_t momentum_emulator_parameter_bytes();
[[gnu::visibility("default")]] std::int64_t momentum_emulator_waits();
}

namespace momentum::emulator {

void count_launch(const Launch& launch);
void count_wait();
int multiprocessors();
bool capturing();

}  // namespace momentum::emulator
