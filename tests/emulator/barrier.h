// The block-wide barrier: __syncthreads and its voting forms.
#pragma once

#include <cstdint>
#include <source_location>

namespace momentum::emulator {

enum class Vote : std::uint8_t { none, count, all, any };

// Returns what the vote counts or decides over the threads that arrived.
int barrier(Vote vote, bool predicate, const std::source_location& where);

void reset_barrier();

// A thread that has returned no longer has to arrive.
void barrier_thread_exited();

}  // namespace momentum::emulator
