// SAM-GS on the CPU.
#pragma once

#include "core/samgs.h"
#include "cpu/driver.h"

namespace momentum::cpu {

void decide_samgs(const SamgsDecision& decision);
void run_samgs(const SamgsCall& call, ParallelFor parallel_for);

// Elements [begin, end) of tensor `index`, for each instruction set.
namespace baseline {
void samgs_range(const SamgsCall& call, int64_t index, int64_t begin, int64_t end);
}
#if defined(__x86_64__)
namespace avx2 {
void samgs_range(const SamgsCall& call, int64_t index, int64_t begin, int64_t end);
}
namespace avx512 {
void samgs_range(const SamgsCall& call, int64_t index, int64_t begin, int64_t end);
}
#endif

}  // namespace momentum::cpu
