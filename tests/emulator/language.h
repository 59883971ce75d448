// Qualifiers, built-in variables, barriers and fences of the language.
#pragma once

#include <cuda_runtime.h>

#include <source_location>

#include "barrier.h"
#include "sanitizers.h"
#include "scheduler.h"

// A shared variable is one static, found by its ABI tag and poisoned before each block (shared_memory.cpp); `used`
// keeps the optimiser from concluding that what the kernel never writes is zero, and the alignment keeps what precedes it
// out of its first granule (forget_accesses in sanitizers.h).
#undef __shared__
#define __shared__ static __attribute__((used, aligned(8), abi_tag("momentum_shared")))
// Every thread reads the launch's own copy instead of receiving 32 KB by value. Written after the type,
// `const Table __grid_constant__ table`, which nvcc accepts as readily as the usual order.
#undef __grid_constant__
#define __grid_constant__ &
#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (::momentum::emulator::current->index)
#define blockIdx (::momentum::emulator::block.index)
#define blockDim (::momentum::emulator::block.shape)
#define gridDim (::momentum::emulator::block.grid)

inline constexpr int warpSize = 32;

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  momentum::emulator::barrier(momentum::emulator::Vote::none, false, where);
}
inline int __syncthreads_count(int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::barrier(momentum::emulator::Vote::count, predicate != 0, where);
}
inline int __syncthreads_and(int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::barrier(momentum::emulator::Vote::all, predicate != 0, where);
}
inline int __syncthreads_or(int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::barrier(momentum::emulator::Vote::any, predicate != 0, where);
}

namespace momentum::emulator {

// Fences of one scope are totally ordered: all that was written before an earlier one is visible after a later one.
inline SyncPoint block_fence, device_fence;

}  // namespace momentum::emulator

inline void __threadfence_block() {
  momentum::emulator::block_fence.release(momentum::emulator::block.half);
  momentum::emulator::block_fence.acquire(momentum::emulator::block.half);
}
inline void __threadfence() {
  __threadfence_block();
  momentum::emulator::device_fence.release();
  momentum::emulator::device_fence.acquire();
}
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() { __builtin_trap(); }
