// Runs a launch: blocks one after another, the threads of a block interleaved at the places where they wait.
#include "scheduler.h"

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "barrier.h"
#include "control.h"
#include "report.h"
#include "sanitizers.h"
#include "schedule.h"
#include "shared_memory.h"
#include "warp.h"

namespace momentum::emulator {

Block block;
Thread* current = nullptr;

namespace {

std::mutex one_launch_at_a_time;
const Launch* running = nullptr;
Fiber host;
std::unique_ptr<Thread[]> threads;
std::vector<Stack> spare_stacks;
std::array<std::uint16_t, max_threads> turns;  // the threads in schedule order
unsigned position = 0;                         // of the current thread in turns
char block_begins, block_ends;                 // happens-before points

bool runnable(const Thread& candidate) {
  return candidate.state == State::unstarted || candidate.state == State::ready;
}

// The next thread after the current one, in schedule order, that can run; null when none can.
Thread* next_runnable() {
  for (unsigned step = 0; step < block.threads; ++step) {
    position = position + 1 == block.threads ? 0 : position + 1;
    Thread& candidate = threads[turns[position]];
    if (runnable(candidate)) return &candidate;
  }
  return nullptr;
}

Stack take_stack() {
  if (spare_stacks.empty()) return allocate_stack();
  const Stack stack = spare_stacks.back();
  spare_stacks.pop_back();
  return stack;
}

// The fiber of a thread chosen to run, given a stack if it has not begun.
Fiber& enter(Thread& chosen);

void run_current() {
  acquire(&block_begins);
  running->run_thread(running->arguments);
  release(&block_ends);
  current->state = State::exited;
  ++block.exited;
  barrier_thread_exited();
  warp_thread_exited();
}

// Runs threads that have not begun, one after another on this stack, as long as none of them waits: a kernel that
// never synchronises costs one switch per block. TSan must see one stack per thread, or reuse looks like a race.
[[noreturn]] void worker() {
  entered();
  for (;;) {
    run_current();
    Thread& finished = *current;
    Thread* chosen = next_runnable();
    if (!chosen) {
      if (block.exited < block.threads) report_deadlock();
      if (!under_tsan()) spare_stacks.push_back(finished.stack);
      switch_fiber(finished.fiber, host, true);
    } else if (chosen->state == State::unstarted && !under_tsan()) {
      chosen->stack = finished.stack;
      chosen->fiber.stack_bottom = finished.fiber.stack_bottom;
      chosen->fiber.stack_size = finished.fiber.stack_size;
      chosen->state = State::ready;
      current = chosen;
    } else {
      Fiber& next = enter(*chosen);
      if (!under_tsan()) spare_stacks.push_back(finished.stack);
      current = chosen;
      switch_fiber(finished.fiber, next, true);
    }
  }
}

Fiber& enter(Thread& chosen) {
  if (chosen.state == State::unstarted) {
    if (!under_tsan() || !chosen.stack.bottom) chosen.stack = take_stack();
    if (under_tsan() && !chosen.fiber.tsan_fiber) chosen.fiber.tsan_fiber = __tsan_create_fiber(0);
    prepare(chosen.fiber, chosen.stack, worker);
    chosen.state = State::ready;
  }
  return chosen.fiber;
}

void run_block(uint3 index) {
  block.index = index;
  block.exited = 0;
  acquire(&block_ends);  // blocks share the image of shared memory, so one follows the other
  poison_shared_memory(block.dynamic_shared, running->dynamic_shared_bytes);
  reset_barrier();
  reset_warps();
  for (unsigned linear = 0; linear < block.threads; ++linear) threads[linear].state = State::unstarted;
  position = block.threads - 1;
  release(&block_begins);
  Thread* first = next_runnable();
  current = first;
  switch_fiber(host, enter(*first));
  current = nullptr;
}

void name_threads() {
  const dim3 shape = block.shape;
  for (unsigned linear = 0; linear < block.threads; ++linear) {
    Thread& named = threads[linear];
    named.linear = linear;
    named.index = {linear % shape.x, linear / shape.x % shape.y, linear / shape.x / shape.y};
  }
}

std::map<const void*, std::size_t>& allowed_dynamic_shared_bytes() {
  static std::map<const void*, std::size_t> bytes;
  return bytes;
}

cudaError_t check(const Launch& launch) {
  const auto [grid, shape] = std::pair(launch.grid, launch.block);
  const std::size_t count = std::size_t{shape.x} * shape.y * shape.z;
  const bool shape_fits = count > 0 && count <= max_threads && shape.x <= 1024 && shape.y <= 1024 && shape.z <= 64;
  const bool grid_fits =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (!shape_fits || !grid_fits) return cudaErrorInvalidConfiguration;
  const auto found = allowed_dynamic_shared_bytes().find(launch.kernel);
  const std::size_t allowed =
      found == allowed_dynamic_shared_bytes().end() ? default_dynamic_shared_bytes : found->second;
  return launch.dynamic_shared_bytes <= allowed ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

const void* running_kernel() { return running ? running->kernel : nullptr; }

Thread& thread(unsigned linear) { return threads[linear]; }

void allow_dynamic_shared_bytes(const void* kernel, std::size_t bytes) {
  const std::lock_guard lock(one_launch_at_a_time);
  allowed_dynamic_shared_bytes()[kernel] = bytes;
}

void suspend(Wait wait, const std::source_location& where) {
  Thread& sleeper = *current;
  sleeper.state = State::waiting;
  sleeper.wait = wait;
  sleeper.where = where;
  Thread* chosen = next_runnable();
  if (!chosen) report_deadlock();
  Fiber& next = enter(*chosen);
  current = chosen;
  switch_fiber(sleeper.fiber, next);
  sleeper.wait = Wait::none;
}

void wake(Thread& sleeper) { sleeper.state = State::ready; }

cudaError_t run(const Launch& launch) {
  const std::lock_guard lock(one_launch_at_a_time);
  if (const cudaError_t error = check(launch); error != cudaSuccess) return error;
  if (!threads) threads = std::make_unique<Thread[]>(max_threads);
  const SharedAllocation dynamic(launch.dynamic_shared_bytes);
  running = &launch;
  block.shape = launch.block;
  block.grid = launch.grid;
  block.threads = launch.block.x * launch.block.y * launch.block.z;
  block.dynamic_shared = dynamic.data();
  name_threads();
  adopt_caller(host);
  count_launch(launch);
  const Schedule thread_schedule(block.threads);
  for (unsigned turn = 0; turn < block.threads; ++turn) turns[turn] = static_cast<std::uint16_t>(thread_schedule[turn]);
  const std::uint64_t blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const Schedule block_schedule(blocks);
  for (std::uint64_t step = 0; step < blocks; ++step) {
    const std::uint64_t linear = block_schedule[step];
    run_block({static_cast<unsigned>(linear % launch.grid.x),
               static_cast<unsigned>(linear / launch.grid.x % launch.grid.y),
               static_cast<unsigned>(linear / launch.grid.x / launch.grid.y)});
  }
  acquire(&block_ends);
  running = nullptr;
  return cudaSuccess;
}

}  // namespace momentum::emulator
