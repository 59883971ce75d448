// A tensor of which only the bytes matter.
#pragma once

#include <cstdint>

namespace momentum {

struct Bytes {
  void* data;
  int64_t size;
};

}  // namespace momentum
