#include "warp.h"

#include <array>
#include <bit>
#include <memory>
#include <string>

#include "report.h"
#include "sanitizers.h"

namespace momentum::emulator {

namespace {

// Each lane is in at most one meeting, so a warp never needs more rooms than lanes. A room is free again when every
// lane that met there has left, which lets fast lanes meet anew before slow ones have read.
struct Room {
  std::uint32_t mask = 0;
  std::uint32_t arrived = 0;
  std::uint32_t inside = 0;
  bool collecting = false;
  Collective collective{};
  SyncPoint point;
  std::array<Contribution, warp_size> brought;
};

struct Warp {
  std::uint32_t exited = 0;
  std::array<Room, warp_size> rooms;
};

std::unique_ptr<Warp[]> warps;
const Contribution poison{{~0ull, ~0ull, ~0ull, ~0ull}};

Warp& warp_of(unsigned linear) { return warps[linear / warp_size]; }

const char* name(Collective collective) {
  switch (collective) {
    case Collective::syncwarp:
      return "__syncwarp";
    case Collective::shuffle:
      return "a shuffle";
    case Collective::vote:
      return "a vote";
    case Collective::match:
      return "a match";
    case Collective::reduce:
      return "a reduction";
    case Collective::ldmatrix:
      return "ldmatrix";
    case Collective::mma:
      return "mma";
  }
  return "";
}

std::string hexadecimal(std::uint32_t mask) {
  char text[11];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

unsigned find_room(const Warp& warp, std::uint32_t mask) {
  unsigned empty = warp_size;
  for (unsigned candidate = 0; candidate < warp_size; ++candidate) {
    const Room& room = warp.rooms[candidate];
    if (room.collecting && room.mask == mask) return candidate;
    if (empty == warp_size && !room.collecting && !room.inside) empty = candidate;
  }
  return empty;
}

bool complete(const Warp& warp, const Room& room) { return (room.mask & ~(room.arrived | warp.exited)) == 0; }

// Lets everyone but the last arrival go on.
void open(Room& room, unsigned first_of_warp) {
  room.collecting = false;
  for (std::uint32_t rest = room.arrived; rest; rest &= rest - 1) {
    Thread& waiting = thread(first_of_warp + static_cast<unsigned>(std::countr_zero(rest)));
    if (waiting.state == State::waiting) wake(waiting);
  }
}

}  // namespace

Meeting::Meeting(Collective collective, std::uint32_t mask, const Contribution& mine, const std::source_location& where) {
  Warp& warp = warp_of(current->linear);
  const unsigned me = lane();
  if (!(mask >> me & 1))
    fail("the mask " + hexadecimal(mask) + " of " + name(collective) + " at " + place(where) +
         " does not name the calling lane " + std::to_string(me));
  place_ = find_room(warp, mask);
  Room& room = warp.rooms[place_];
  if (!room.collecting) {
    room.collecting = true;
    room.mask = mask;
    room.arrived = 0;
    room.collective = collective;
  } else if (room.collective != collective) {
    fail("divergent warp: this lane reached " + std::string(name(collective)) + " at " + place(where) + " while lanes " +
         hexadecimal(room.arrived) + " with the same mask wait in " + name(room.collective));
  }
  room.brought[me] = mine;
  room.arrived |= 1u << me;
  room.inside |= 1u << me;
  // Only __syncwarp orders memory; the other collectives exchange registers.
  if (collective == Collective::syncwarp) room.point.release(block.half);
  if (complete(warp, room)) {
    open(room, current->linear - me);
  } else {
    suspend(Wait::warp, where);
  }
  if (collective == Collective::syncwarp) room.point.acquire(block.half);
}

Meeting::~Meeting() { warp_of(current->linear).rooms[place_].inside &= ~(1u << lane()); }

std::uint32_t Meeting::lanes() const { return warp_of(current->linear).rooms[place_].arrived; }

const Contribution& Meeting::of(unsigned lane) const {
  const Room& room = warp_of(current->linear).rooms[place_];
  return room.arrived >> (lane % warp_size) & 1 ? room.brought[lane % warp_size] : poison;
}

void reset_warps() {
  if (!warps) warps = std::make_unique<Warp[]>(max_threads / warp_size);
  for (unsigned first = 0; first < block.threads; first += warp_size) {
    Warp& warp = warp_of(first);
    // Lanes beyond the end of the block do not exist, and are waited for no more than those that returned.
    const unsigned lanes = block.threads - first;
    warp.exited = lanes < warp_size ? ~0u << lanes : 0;
    for (Room& room : warp.rooms) room.collecting = false, room.inside = 0;
  }
}

void warp_thread_exited() {
  Warp& warp = warp_of(current->linear);
  warp.exited |= 1u << lane();
  for (Room& room : warp.rooms)
    if (room.collecting && complete(warp, room)) open(room, current->linear - lane());
}

std::uint32_t awaited_lanes(unsigned linear) {
  for (const Room& room : warp_of(linear).rooms)
    if (room.collecting && room.arrived >> (linear % warp_size) & 1) return room.mask;
  return 0;
}

}  // namespace momentum::emulator
