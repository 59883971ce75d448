// Runs calls with the CPU kernels, on torch's thread pool.
#pragma once

#include "cpu/dispatch.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

void run_on_cpu(const cpu::Kernels& kernels, const StepCall& call);

template <class Rule>
void run(const char*, const StepCall& call, int32_t) {
  run_on_cpu(cpu::kernels<Rule>(), call);
}

}  // namespace momentum::ops::backend
