// Threads for the CPU kernels, without torch's pool.
#pragma once

#include <cstdint>

#include "cpu/driver.h"

namespace momentum::array {

// 0 means one thread per core this process may use.
void set_num_threads(int count);
int get_num_threads();

// Starts threads for each call and joins them: about 20 us each, and nothing is left behind that a fork would break.
void parallel_for(int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context);

}  // namespace momentum::array
