// torch's thread pool, as the CPU kernels take it.
#pragma once

#include <torch/csrc/stable/library.h>

#include "cpu/driver.h"

namespace momentum::ops::backend {

inline void on_torch_threads(int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
}

}  // namespace momentum::ops::backend
