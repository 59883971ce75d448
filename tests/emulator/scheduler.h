// The state of the one block that runs, as kernels see it, and how its threads take turns.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "fiber.h"

namespace momentum::emulator {

inline constexpr unsigned warp_size = 32;
inline constexpr unsigned max_threads = 1024;

enum class State : std::uint8_t { unstarted, ready, waiting, exited };

enum class Wait : std::uint8_t { none, barrier, warp };

struct Thread {
  uint3 index{};        // threadIdx
  unsigned linear = 0;  // its rank in the block; the lane is its last five bits
  State state = State::unstarted;
  Wait wait = Wait::none;
  std::source_location where;  // the statement it waits in
  Fiber fibers[2];             // by Block::half
};

struct Block {
  uint3 index{};  // blockIdx
  dim3 shape;     // blockDim
  dim3 grid;      // gridDim
  unsigned threads = 0;
  unsigned exited = 0;
  unsigned half = 0;  // alternates from block to block where TSan watches
  char* dynamic_shared = nullptr;
};

extern Block block;
extern Thread* current;

Thread& thread(unsigned linear);
inline unsigned lane() { return current->linear % warp_size; }

// Sets the shape of the blocks that follow, and the order of their threads.
void shape_block(dim3 shape);

// Runs one block to completion; each of its threads calls run_thread(arguments).
void run_block(uint3 index, void (*run_thread)(const void* arguments), const void* arguments);

// For the host, after the last block: what the blocks did happened before what follows.
void join_blocks();

// Sleeps until wake() is called for this thread.
void suspend(Wait wait, const std::source_location& where);
void wake(Thread& thread);

}  // namespace momentum::emulator
