// Copies that are under way, per thread, until a wait lets them land.
#pragma once

#include <cstddef>

namespace momentum::emulator {

struct Copy {
  void* shared = nullptr;
  const void* global = nullptr;  // null: zeros
  std::size_t bytes = 0;
};

// Adds a copy to the current thread's open group.
void start_copy(const Copy& copy);
void commit_copies();

// Takes the oldest copy that a wait for all but the last `in_flight` groups has to finish; false when there is none.
bool take_due_copy(unsigned in_flight, Copy& copy);

// Forgets what a block left under way.
void reset_copies();

}  // namespace momentum::emulator
