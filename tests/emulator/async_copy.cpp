#include "async_copy.h"

#include <array>
#include <cstdint>
#include <deque>
#include <string>

#include "report.h"
#include "scheduler.h"

namespace momentum::emulator {

namespace {

struct Queue {
  std::deque<std::deque<Copy>> committed;
  std::deque<Copy> open;
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
  used = true;
  queues[current->linear].open.push_back(copy);
}

void commit_copies() {
  Queue& queue = queues[current->linear];
  queue.committed.push_back(std::move(queue.open));
  queue.open.clear();
  used = true;
}

bool take_due_copy(unsigned in_flight, Copy& copy) {
  auto& groups = queues[current->linear].committed;
  while (groups.size() > in_flight) {
    if (groups.front().empty()) {
      groups.pop_front();
      continue;
    }
    copy = groups.front().front();
    groups.front().pop_front();
    return true;
  }
  return false;
}

void reset_copies() {
  if (!used) return;
  used = false;
  for (unsigned linear = 0; linear < block.threads; ++linear) queues[linear] = {};
}

}  // namespace momentum::emulator
