// The threads of a block, interleaved at the places where they wait.
//
// Under TSan every thread has a fiber of its own, with a stack that nobody else uses. There are two such sets, and
// consecutive blocks alternate between them: were the same fibers to run the next block, its threads would be ordered
// after those of the last one, and a race between blocks could not be seen.
#include "scheduler.h"

#include <array>
#include <memory>
#include <vector>

#include "async_copy.h"
#include "barrier.h"
#include "report.h"
#include "sanitizers.h"
#include "schedule.h"
#include "warp.h"

namespace momentum::emulator {

Block block;
Thread* current = nullptr;

namespace {

Fiber host;
const auto threads = std::make_unique<Thread[]>(max_threads);
std::vector<Stack> spare_stacks;
std::array<std::uint16_t, max_threads> turns;  // the threads in schedule order
unsigned position = 0;                         // of the current thread in turns
void (*run_thread)(const void* arguments) = nullptr;
const void* arguments = nullptr;
SyncPoint block_begins, block_ends;

Fiber& fiber_of(Thread& thread) { return thread.fibers[block.half]; }

// The next thread after the current one, in schedule order, that can run; null when none can.
Thread* next_runnable() {
  for (unsigned step = 0; step < block.threads; ++step) {
    position = position + 1 == block.threads ? 0 : position + 1;
    Thread& candidate = threads[turns[position]];
    if (candidate.state == State::unstarted || candidate.state == State::ready) return &candidate;
  }
  return nullptr;
}

Stack take_stack() {
  if (spare_stacks.empty()) return allocate_stack();
  const Stack stack = spare_stacks.back();
  spare_stacks.pop_back();
  return stack;
}

void give_back_stack(Fiber& fiber) {
  if (!under_tsan()) spare_stacks.push_back(fiber.stack);
}

void run_current() {
  block_begins.acquire();
  run_thread(arguments);
  block_ends.release();
  current->state = State::exited;
  ++block.exited;
  barrier_thread_exited();
  warp_thread_exited();
}

[[noreturn]] void worker();

// The fiber of a thread chosen to run, made ready if the thread has not begun.
Fiber& enter(Thread& chosen) {
  Fiber& fiber = fiber_of(chosen);
  if (chosen.state == State::unstarted) {
    if (!under_tsan() || !fiber.stack.bottom) fiber.stack = take_stack();
    prepare(fiber, worker);
    chosen.state = State::ready;
  }
  return fiber;
}

// Runs threads that have not begun, one after another on this stack, as long as none of them waits: a kernel that
// never synchronises costs one switch per block.
void worker() {
  entered();
  for (;;) {
    run_current();
    Fiber& finished = fiber_of(*current);
    Thread* chosen = next_runnable();
    if (!chosen) {
      if (block.exited < block.threads) report_deadlock();
      give_back_stack(finished);
      switch_fiber(finished, host, true);
    } else if (chosen->state == State::unstarted && !under_tsan()) {
      fiber_of(*chosen).stack = finished.stack;
      chosen->state = State::ready;
      current = chosen;
    } else {
      Fiber& next = enter(*chosen);
      give_back_stack(finished);
      current = chosen;
      switch_fiber(finished, next, true);
    }
  }
}

// By the host and in advance: for TSan, who makes a fiber is ordered before it.
void make_tsan_fibers(Thread& thread) {
  for (Fiber& fiber : thread.fibers)
    if (!fiber.tsan_fiber) fiber.tsan_fiber = __tsan_create_fiber(0);
}

}  // namespace

Thread& thread(unsigned linear) { return threads[linear]; }

void shape_block(dim3 shape) {
  block.shape = shape;
  block.threads = shape.x * shape.y * shape.z;
  const Schedule schedule(block.threads);
  for (unsigned linear = 0; linear < block.threads; ++linear) {
    threads[linear].linear = linear;
    threads[linear].index = {linear % shape.x, linear / shape.x % shape.y, linear / shape.x / shape.y};
    turns[linear] = static_cast<std::uint16_t>(schedule[linear]);
    if (under_tsan()) make_tsan_fibers(threads[linear]);
  }
}

void run_block(uint3 index, void (*thread_body)(const void* arguments), const void* body_arguments) {
  run_thread = thread_body;
  arguments = body_arguments;
  block.index = index;
  block.exited = 0;
  if (under_tsan()) block.half ^= 1;
  reset_barrier();
  reset_warps();
  reset_copies();
  for (unsigned linear = 0; linear < block.threads; ++linear) threads[linear].state = State::unstarted;
  adopt_caller(host);
  block_begins.release();
  position = block.threads - 1;
  Thread* first = next_runnable();
  Fiber& fiber = enter(*first);
  current = first;
  switch_fiber(host, fiber);
  current = nullptr;
}

void join_blocks() { block_ends.acquire(); }

void suspend(Wait wait, const std::source_location& where) {
  Thread& sleeper = *current;
  sleeper.state = State::waiting;
  sleeper.wait = wait;
  sleeper.where = where;
  Thread* chosen = next_runnable();
  if (!chosen) report_deadlock();
  Fiber& next = enter(*chosen);
  current = chosen;
  switch_fiber(fiber_of(sleeper), next);
  sleeper.wait = Wait::none;
}

void wake(Thread& sleeper) { sleeper.state = State::ready; }

}  // namespace momentum::emulator
