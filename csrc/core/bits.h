// Bit casts that compile to nothing on host and device.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace momentum {

template <class To, class From>
MOMENTUM_HD constexpr To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

}  // namespace momentum
