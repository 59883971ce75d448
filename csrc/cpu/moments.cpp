#include "cpu/moments.h"

#include "cpu/isa.h"

namespace momentum::cpu {

bool step_moments([[maybe_unused]] const Task& task, [[maybe_unused]] const Frame<float>& frame,
                  [[maybe_unused]] const Moments<float>& moments, [[maybe_unused]] uint32_t number,
                  [[maybe_unused]] int64_t begin, [[maybe_unused]] int64_t end) {
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
  if (isa() == Isa::kAvx512Vbmi) return avx512vbmi::step_moments(task, frame, moments, number, begin, end);
  if (isa() == Isa::kAvx512) return avx512::step_moments(task, frame, moments, number, begin, end);
#endif
  return false;
}

}  // namespace momentum::cpu
