#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace momentum::cpu {
namespace {

Isa best_supported() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  const bool vbmi = v4 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
  return vbmi ? Isa::kAvx512Vbmi : v4 ? Isa::kAvx512 : v3 ? Isa::kAvx2 : Isa::kBaseline;
#else
  return Isa::kBaseline;
#endif
}

Isa choose() {
  const Isa best = best_supported();
  const char* wanted = std::getenv("MOMENTUM_CPU_ISA");
  if (wanted == nullptr) return best;
  for (const Isa candidate : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vbmi}) {
    if (std::strcmp(wanted, name(candidate)) == 0 && candidate <= best) return candidate;
  }
  return best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return "baseline";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vbmi:
      return "avx512vbmi";
  }
  return "unknown";
}

}  // namespace momentum::cpu
