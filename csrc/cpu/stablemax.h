// StableMax cross-entropy on the CPU.
#pragma once

#include "core/stablemax.h"
#include "cpu/driver.h"

namespace momentum::cpu {

void run_stablemax_loss(const StableMaxCall& call, ParallelFor parallel_for);
void run_stablemax_grad(const StableMaxCall& call, ParallelFor parallel_for);

// Rows [begin, end), for each instruction set.
namespace baseline {
void stablemax_loss(const StableMaxCall& call, int64_t begin, int64_t end);
void stablemax_grad(const StableMaxCall& call, int64_t begin, int64_t end);
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
void stablemax_loss(const StableMaxCall& call, int64_t begin, int64_t end);
void stablemax_grad(const StableMaxCall& call, int64_t begin, int64_t end);
}  // namespace avx2
namespace avx512 {
void stablemax_loss(const StableMaxCall& call, int64_t begin, int64_t end);
void stablemax_grad(const StableMaxCall& call, int64_t begin, int64_t end);
}  // namespace avx512
#endif

}  // namespace momentum::cpu
