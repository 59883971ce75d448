// The instructions of csrc/cuda/ptx.h, for the emulator.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>

#include "async_copy.h"
#include "report.h"
#include "warp.h"

namespace momentum::emulator {

// In this header, so that the sanitizers see the accesses of a copy that lands as the kernel's.
inline void land(const Copy& copy) {
  if (copy.global) {
    std::memcpy(copy.shared, copy.global, copy.bytes);
  } else {
    std::memset(copy.shared, 0, copy.bytes);
  }
}

inline void require_whole_warp(const Meeting& meeting, const char* instruction) {
  if (meeting.lanes() != ~0u) fail(std::string(instruction) + " needs all 32 lanes of the warp");
}

// Element `column` of the row of eight 16-bit elements that a lane brought.
inline std::uint16_t element(const Contribution& row, unsigned column) {
  return static_cast<std::uint16_t>(row.word[column / 4] >> column % 4 * 16);
}

inline float widen(std::uint16_t bits, std::type_identity<__nv_bfloat16>) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}
inline float widen(std::uint16_t bits, std::type_identity<__half>) { return __half2float(std::bit_cast<__half_raw>(bits)); }

template <class Element>
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const std::source_location& where) {
  Contribution mine;
  std::memcpy(mine.word, a, sizeof a);
  std::memcpy(mine.word + 2, b, sizeof b);
  const Meeting meeting(Collective::mma, ~0u, mine, where);
  require_whole_warp(meeting, "mma");
  const auto half = [](const Contribution& fragments, unsigned word, unsigned k) {
    const auto pair = static_cast<std::uint32_t>(fragments.word[word / 2] >> word % 2 * 32);
    return widen(static_cast<std::uint16_t>(pair >> k % 2 * 16), std::type_identity<Element>{});
  };
  const unsigned group = lane() / 4, pair = lane() % 4 * 2;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned lower_rows = i / 2, column = pair + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned owner = k % 8 / 2, upper_half = k / 8;
      const float x = half(meeting.of(group * 4 + owner), upper_half * 2 + lower_rows, k);
      const float y = half(meeting.of(column * 4 + owner), 4 + upper_half, k);
      d[i] += x * y;
    }
  }
}

}  // namespace momentum::emulator

namespace momentum::ptx {

inline void assume_global(const void*) {}

inline std::uint32_t load_relaxed(const std::uint32_t* address) { return __atomic_load_n(address, __ATOMIC_RELAXED); }

// An ordinary store here, so that the sanitizers check it.
template <class Vector>
inline void store_vector(void* address, Vector value) {
  *static_cast<Vector*>(address) = value;
}

// The data lands when a wait demands it and not before; until then its destination holds poison. That write is the
// kernel's own, so a reader who does not wait, or a copy into a buffer still being read, is a wrong result and a race.
template <int kBytes>
void copy_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::start_copy({shared, valid ? global : nullptr, kBytes});
  std::memset(shared, 0xff, kBytes);
}

inline void commit_copies() { emulator::commit_copies(); }

template <int kInFlight>
void wait_copies() {
  for (emulator::Copy due; emulator::take_due_copy(kInFlight, due);) emulator::land(due);
}

template <bool kTransposed, int kMatrices>
void load_matrices(std::uint32_t (&fragment)[kMatrices], const void* row,
                   std::source_location where = std::source_location::current()) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  using namespace emulator;
  // Each lane reads the row it points at; the meeting then deals the elements out.
  Contribution mine;
  if (lane() < 8 * kMatrices) {
    const uint4 bits = *static_cast<const uint4*>(row);
    std::memcpy(mine.word, &bits, sizeof bits);
  }
  const Meeting meeting(Collective::ldmatrix, ~0u, mine, where);
  require_whole_warp(meeting, "ldmatrix");
  const unsigned group = lane() / 4, pair = lane() % 4 * 2;
  for (unsigned matrix = 0; matrix < kMatrices; ++matrix) {
    const auto at = [&](unsigned r, unsigned c) -> std::uint32_t { return element(meeting.of(8 * matrix + r), c); };
    fragment[matrix] = kTransposed ? at(pair, group) | at(pair + 1, group) << 16 : at(group, pair) | at(group, pair + 1) << 16;
  }
}

inline void multiply_add_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                              std::source_location where = std::source_location::current()) {
  emulator::multiply_add<__nv_bfloat16>(d, a, b, where);
}
inline void multiply_add_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                             std::source_location where = std::source_location::current()) {
  emulator::multiply_add<__half>(d, a, b, where);
}

}  // namespace momentum::ptx
