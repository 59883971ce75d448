// Solves a batch of transport problems on the CPU.
#pragma once

#include "core/ot/batch.h"
#include "cpu/driver.h"

namespace momentum::cpu::ot {

// Several problems run beside each other, a large one on all threads; the bits are the same either way.
void solve(const momentum::ot::Batch& batch, ParallelFor parallel_for);

}  // namespace momentum::cpu::ot
