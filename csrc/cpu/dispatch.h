// The kernels of a rule for the processor at hand.
#pragma once

#include "cpu/isa.h"
#include "cpu/kernels.h"

namespace momentum::cpu {

namespace baseline {
template <class Rule>
const Kernels& kernels();
}
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
namespace avx2 {
template <class Rule>
const Kernels& kernels();
}
namespace avx512 {
template <class Rule>
const Kernels& kernels();
}
#endif

template <class Rule>
const Kernels& kernels() {
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
  if (isa() >= Isa::kAvx512) return avx512::kernels<Rule>();
  if (isa() == Isa::kAvx2) return avx2::kernels<Rule>();
#endif
  return baseline::kernels<Rule>();
}

}  // namespace momentum::cpu
