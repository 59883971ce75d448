// Shuffles, votes, matches and reductions of a warp.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "warp.h"

namespace momentum::emulator {

template <class T>
concept Shuffled = std::is_trivially_copyable_v<T> && sizeof(T) <= 8;

template <Shuffled T>
Contribution pack(T value) {
  Contribution packed;
  std::memcpy(packed.word, &value, sizeof value);
  return packed;
}

template <Shuffled T>
T unpack(const Contribution& packed) {
  T value;
  std::memcpy(&value, packed.word, sizeof value);
  return value;
}

template <Shuffled T>
T shuffle(unsigned mask, T value, unsigned source, const std::source_location& where) {
  const Meeting meeting(Collective::shuffle, mask, pack(value), where);
  return unpack<T>(meeting.of(source));
}

// The lanes of `mask` whose predicate holds.
inline unsigned vote(unsigned mask, bool predicate, const std::source_location& where) {
  const Meeting meeting(Collective::vote, mask, pack(predicate), where);
  unsigned ballot = 0;
  for (unsigned rest = meeting.lanes(); rest; rest &= rest - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(rest));
    if (unpack<bool>(meeting.of(lane))) ballot |= 1u << lane;
  }
  return ballot;
}

template <class T, class Combine>
T reduce(unsigned mask, T value, Combine combine, const std::source_location& where) {
  const Meeting meeting(Collective::reduce, mask, pack(value), where);
  unsigned rest = meeting.lanes();
  T total = unpack<T>(meeting.of(static_cast<unsigned>(std::countr_zero(rest))));
  for (rest &= rest - 1; rest; rest &= rest - 1)
    total = combine(total, unpack<T>(meeting.of(static_cast<unsigned>(std::countr_zero(rest)))));
  return total;
}

template <class T>
concept Reduced = std::is_same_v<T, int> || std::is_same_v<T, unsigned>;

}  // namespace momentum::emulator

inline void __syncwarp(unsigned mask = ~0u, std::source_location where = std::source_location::current()) {
  using namespace momentum::emulator;
  const Meeting meeting(Collective::syncwarp, mask, {}, where);
}

// A source outside the calling lane's segment of `width` lanes means the lane itself, except for the plain shuffle,
// which wraps around within the segment.
template <momentum::emulator::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              std::source_location where = std::source_location::current()) {
  const unsigned lane = momentum::emulator::lane(), segment = static_cast<unsigned>(width);
  return momentum::emulator::shuffle(mask, value, (lane & ~(segment - 1)) | (static_cast<unsigned>(source) & (segment - 1)),
                                     where);
}
template <momentum::emulator::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 std::source_location where = std::source_location::current()) {
  const unsigned lane = momentum::emulator::lane(), first = lane & ~(static_cast<unsigned>(width) - 1);
  return momentum::emulator::shuffle(mask, value, lane >= first + delta ? lane - delta : lane, where);
}
template <momentum::emulator::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   std::source_location where = std::source_location::current()) {
  const unsigned lane = momentum::emulator::lane(), last = lane | (static_cast<unsigned>(width) - 1);
  return momentum::emulator::shuffle(mask, value, lane + delta <= last ? lane + delta : lane, where);
}
template <momentum::emulator::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  std::source_location where = std::source_location::current()) {
  const unsigned lane = momentum::emulator::lane(), source = lane ^ static_cast<unsigned>(lanes);
  const unsigned last = lane | (static_cast<unsigned>(width) - 1);
  return momentum::emulator::shuffle(mask, value, source <= last ? source : lane, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::vote(mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::vote(mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return momentum::emulator::vote(mask, predicate == 0, where) == 0;
}
template <momentum::emulator::Shuffled T>
unsigned __match_any_sync(unsigned mask, T value, std::source_location where = std::source_location::current()) {
  using namespace momentum::emulator;
  const Meeting meeting(Collective::match, mask, pack(value), where);
  unsigned same = 0;
  for (unsigned rest = meeting.lanes(); rest; rest &= rest - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(rest));
    if (meeting.of(lane).word[0] == pack(value).word[0]) same |= 1u << lane;
  }
  return same;
}

template <momentum::emulator::Reduced T>
T __reduce_add_sync(unsigned mask, T value, std::source_location where = std::source_location::current()) {
  return static_cast<T>(
      momentum::emulator::reduce(mask, static_cast<unsigned>(value), [](unsigned a, unsigned b) { return a + b; }, where));
}
template <momentum::emulator::Reduced T>
T __reduce_min_sync(unsigned mask, T value, std::source_location where = std::source_location::current()) {
  return momentum::emulator::reduce(mask, value, [](T a, T b) { return b < a ? b : a; }, where);
}
template <momentum::emulator::Reduced T>
T __reduce_max_sync(unsigned mask, T value, std::source_location where = std::source_location::current()) {
  return momentum::emulator::reduce(mask, value, [](T a, T b) { return a < b ? b : a; }, where);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, std::source_location where = std::source_location::current()) {
  return momentum::emulator::reduce(mask, value, [](unsigned a, unsigned b) { return a & b; }, where);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, std::source_location where = std::source_location::current()) {
  return momentum::emulator::reduce(mask, value, [](unsigned a, unsigned b) { return a | b; }, where);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, std::source_location where = std::source_location::current()) {
  return momentum::emulator::reduce(mask, value, [](unsigned a, unsigned b) { return a ^ b; }, where);
}
