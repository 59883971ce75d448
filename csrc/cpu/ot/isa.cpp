#include "cpu/isa.h"

#include "cpu/ot/kernels.h"

namespace momentum::cpu::ot {

// The sanitizers' programs are built for the baseline alone.
namespace baseline {
const Kernels& table();
}
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
namespace avx2 {
const Kernels& table();
}
namespace avx512 {
const Kernels& table();
}
#endif

const Kernels& kernels() {
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
  if (isa() >= Isa::kAvx512) return avx512::table();
  if (isa() == Isa::kAvx2) return avx2::table();
#endif
  return baseline::table();
}

}  // namespace momentum::cpu::ot
