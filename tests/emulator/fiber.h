// Stacks and the switch between them.
#pragma once

#include <cstddef>

namespace momentum::emulator {

struct Stack {
  const char* bottom = nullptr;
  std::size_t bytes = 0;
};

// Ample for unoptimised, sanitized frames, as only touched pages cost memory; and with an inaccessible page below it,
// so that an overflow faults instead of corrupting a neighbour.
Stack allocate_stack();

// Where an execution stands while it is not running, and how the sanitizers know it.
struct Fiber {
  Stack stack;
  void* stack_pointer = nullptr;
  void* tsan_fiber = nullptr;
  void* asan_fake_stack = nullptr;
};

// Makes `fiber` start in `entry`, which never returns, at the top of its stack.
void prepare(Fiber& fiber, void (*entry)());

// Makes `fiber` stand for the calling CPU thread; the extent of its stack becomes known at the first switch away.
void adopt_caller(Fiber& fiber);

// Leaves `from`, to be resumed by a later switch, and continues `to`. With `forever`, `from` is not coming back.
void switch_fiber(Fiber& from, Fiber& to, bool forever = false);

// Must be the first call in a fiber's entry function.
void entered();

}  // namespace momentum::emulator
