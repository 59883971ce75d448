// Runs one call on the CPU.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "cpu/kernels.h"

namespace momentum::cpu {

// Runs body(begin, end, context) over disjoint ranges that cover [begin, end), at least `grain` long, possibly in parallel.
using RangeBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context);

// One parallel region for the whole list per pass, however many tensors it has.
void run_step(const Kernels& kernels, const StepCall& call, ParallelFor parallel_for);

}  // namespace momentum::cpu
