// Which of the compiled instruction sets this processor runs.
#pragma once

namespace momentum::cpu {

// kAvx512Vbmi, which permutes bytes and rounds to bfloat16 as well, has the kernels of kAvx512 but for those of moments.h.
enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Vbmi };

// The best one supported; MOMENTUM_CPU_ISA=baseline|avx2|avx512|avx512vbmi in the environment asks for a lesser one. Fixed at
// first use.
Isa isa();
const char* name(Isa isa);

}  // namespace momentum::cpu
