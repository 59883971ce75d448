// The state of the one block that runs, as kernels see it, and the ways a thread waits.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "fiber.h"

namespace momentum::emulator {

inline constexpr unsigned warp_size = 32;
inline constexpr unsigned max_threads = 1024;
inline constexpr std::size_t max_dynamic_shared_bytes = 227 * 1024;
inline constexpr std::size_t default_dynamic_shared_bytes = 48 * 1024;
inline constexpr std::size_t max_static_shared_bytes = 48 * 1024;
inline constexpr std::size_t max_parameter_bytes = 32764;

struct Launch {
  const void* kernel;
  dim3 grid;
  dim3 block;
  std::size_t dynamic_shared_bytes;
  std::size_t parameter_bytes;
  void (*run_thread)(const void* arguments);
  const void* arguments;
};

// Runs every block to completion on the calling CPU thread; launches of different CPU threads take turns.
cudaError_t run(const Launch& launch);

// The dynamic shared memory an attribute call allowed this kernel.
void allow_dynamic_shared_bytes(const void* kernel, std::size_t bytes);

enum class State : std::uint8_t { unstarted, ready, waiting, exited };

enum class Wait : std::uint8_t { none, barrier, warp };

struct Thread {
  uint3 index{};        // threadIdx
  unsigned linear = 0;  // its rank in the block; the lane is its last five bits
  State state = State::unstarted;
  Wait wait = Wait::none;
  std::source_location where;  // the statement it waits in
  Fiber fiber;
  Stack stack;
};

// What blockIdx, blockDim and gridDim read.
struct Block {
  uint3 index{};
  dim3 shape;
  dim3 grid;
  unsigned threads = 0;
  unsigned exited = 0;
  char* dynamic_shared = nullptr;
};

extern Block block;
extern Thread* current;

Thread& thread(unsigned linear);
inline unsigned lane() { return current->linear % warp_size; }

// The kernel of the launch that runs, null outside of one.
const void* running_kernel();

// Sleeps until wake() is called for this thread.
void suspend(Wait wait, const std::source_location& where);
void wake(Thread& thread);

}  // namespace momentum::emulator
