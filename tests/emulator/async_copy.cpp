#include "async_copy.h"

#include <array>
#include <cstdint>
#include <string>

#include "report.h"
#include "scheduler.h"

namespace momentum::emulator {

namespace {

// A ring in static storage: memory from the heap, taken by a thread and given back by the host, TSan would call a race.
struct Queue {
  static constexpr unsigned capacity = 256;
  struct Pending {
    Copy copy;
    unsigned group;
  };
  std::array<Pending, capacity> ring;
  unsigned begin = 0, end = 0;  // count on, modulo the capacity
  unsigned open_group = 0;
};

std::array<Queue, max_threads> queues;
bool used = false;

void check_alignment(const char* side, const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail("an asynchronous copy of " + std::to_string(bytes) + " bytes has a misaligned " + side + " address");
}

}  // namespace

void start_copy(const Copy& copy) {
  check_alignment("shared", copy.shared, copy.bytes);
  check_alignment("global", copy.global, copy.bytes);
  Queue& queue = queues[current->linear];
  if (queue.end - queue.begin == Queue::capacity)
    fail("a thread has more than " + std::to_string(Queue::capacity) + " asynchronous copies under way");
  queue.ring[queue.end++ % Queue::capacity] = {copy, queue.open_group};
  used = true;
}

void commit_copies() {
  ++queues[current->linear].open_group;
  used = true;
}

bool take_due_copy(unsigned in_flight, Copy& copy) {
  Queue& queue = queues[current->linear];
  if (queue.begin == queue.end) return false;
  const Queue::Pending& oldest = queue.ring[queue.begin % Queue::capacity];
  if (oldest.group + in_flight >= queue.open_group) return false;
  copy = oldest.copy;
  ++queue.begin;
  return true;
}

void reset_copies() {
  if (!used) return;
  used = false;
  for (unsigned linear = 0; linear < block.threads; ++linear)
    queues[linear].begin = queues[linear].end = queues[linear].open_group = 0;
}

}  // namespace momentum::emulator
