// The k-th largest magnitude of a tensor, exactly: three passes count how often a digit of the float32 magnitude occurs - 11,
// 10 and 10 bits, the highest first, of those numbers that agree with the digits found before - and between them the digit is
// chosen in which the k-th lies. Counts are integers, so neither order nor sharding matters, and they add up across processes.
#pragma once

#include <cstdint>

#include "core/bits.h"
#include "core/config.h"
#include "core/math.h"

namespace momentum {

inline constexpr int kSelectionPasses = 3;

MOMENTUM_HD constexpr int selection_bits(int pass) { return pass == 0 ? 11 : 10; }
MOMENTUM_HD constexpr int selection_shift(int pass) { return 20 - 10 * pass; }
MOMENTUM_HD constexpr int selection_bins(int pass) { return 1 << selection_bits(pass); }

// A pass makes its counts, and out of them the digits found so far and how many of the numbers that have them are wanted.
inline constexpr int kSelectedDigits = 0, kSelectedRest = 1;
MOMENTUM_HD constexpr int selection_width(int pass) { return selection_bins(pass) + 2; }

// Magnitudes in the order of their bits; NaN is the largest. Those of doubles are compared as float32.
template <class T>
MOMENTUM_HD uint32_t selection_key(T value) {
  return bit_cast<uint32_t>(float(value)) & 0x7fffffffu;
}

// -1 where an earlier digit differs.
MOMENTUM_HD int selection_bin(int pass, uint32_t digits, uint32_t key) {
  const int bin = int(key >> selection_shift(pass)) & (selection_bins(pass) - 1);
  return key >> (selection_shift(pass) + selection_bits(pass)) == digits ? bin : -1;
}

// The last of `count` groups, ascending in magnitude, at which at least `rest` numbers are reached from the top; `rest` becomes
// what is left to find in it.
template <class Size>
MOMENTUM_HD int selection_search(int count, double& rest, Size&& size) {
  for (int i = count - 1; i > 0 && rest > 0; --i) {
    const double here = size(i);
    if (here >= rest) return i;
    rest -= here;
  }
  return 0;
}

}  // namespace momentum
