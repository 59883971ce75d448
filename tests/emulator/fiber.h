// Stacks and the switch between them.
#pragma once

#include <cstddef>

namespace momentum::emulator {

// One kernel parameter block (32 KB) plus deep, unoptimised, sanitized frames; only touched pages cost memory.
inline constexpr std::size_t stack_bytes = 512 * 1024;

// A mapping with an inaccessible page below it, so that an overflow faults instead of corrupting a neighbour.
struct Stack {
  char* bottom = nullptr;
};
Stack allocate_stack();

// Where an execution stands while it is not running, and how the sanitizers know it.
struct Fiber {
  void* stack_pointer = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_size = 0;
  void* tsan_fiber = nullptr;
  void* asan_fake_stack = nullptr;
};

// Makes `fiber` start in `entry`, which never returns, at the top of `stack`.
void prepare(Fiber& fiber, Stack stack, void (*entry)());

// Describes the calling thread's own stack; its extent becomes known at the first switch away from it.
void adopt_caller(Fiber& fiber);

// Leaves `from`, to be resumed by a later switch, and continues `to`. With `forever`, `from` is not coming back.
void switch_fiber(Fiber& from, Fiber& to, bool forever = false);

// Must be the first call in a fiber's entry function.
void entered();

}  // namespace momentum::emulator
