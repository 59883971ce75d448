// Ties the sources of one instruction set together.
#pragma once

#include "cpu/ot/kernels.h"

namespace momentum::cpu::ot::MOMENTUM_ISA {

void multiply(const Sparse& s, const double* x, int64_t begin, int64_t end, double* out);
int solve(const System& system);
const Kernels& table();

}  // namespace momentum::cpu::ot::MOMENTUM_ISA
