// The exchange between lanes on which every *_sync intrinsic is built.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>

#include "scheduler.h"

namespace momentum::emulator {

enum class Collective : std::uint8_t { syncwarp, shuffle, vote, match, reduce, ldmatrix, mma };

// What one lane contributes: up to the A and B fragments of an mma.
struct Contribution {
  std::uint64_t word[4] = {};
};

// A meeting of the lanes of `mask`: constructed by each of them, it returns when all have come. Lanes that have
// returned from the kernel are not waited for.
class Meeting {
 public:
  Meeting(Collective collective, std::uint32_t mask, const Contribution& mine, const std::source_location& where);
  ~Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  // The lanes that came.
  std::uint32_t lanes() const;
  // What a lane brought; poison if it was not there, as on the device, where the value is undefined.
  const Contribution& of(unsigned lane) const;

 private:
  unsigned place_;
};

void reset_warps();
void warp_thread_exited();

// "lanes 0xffffffff at kernel.cu:12", for a thread that waits in a meeting.
std::uint32_t awaited_lanes(unsigned linear);

}  // namespace momentum::emulator
