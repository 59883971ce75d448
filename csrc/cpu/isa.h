// Which of the compiled instruction sets this processor runs.
#pragma once

namespace momentum::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best one supported; MOMENTUM_CPU_ISA=baseline|avx2|avx512 in the environment asks for a lesser one. Fixed at first use.
Isa isa();
const char* name(Isa isa);

}  // namespace momentum::cpu
