// cpu_isa() -> int: the instruction set in use, for momentum.build_info().
#include "cpu/isa.h"

#include <torch/csrc/stable/library.h>

namespace {

void cpu_isa(StableIValue* stack, uint64_t, uint64_t) { stack[0] = StableIValue(momentum::cpu::isa()); }

}  // namespace

// There is no argument to take a dispatch key from.
STABLE_TORCH_LIBRARY_FRAGMENT(momentum, library) { library.def("cpu_isa() -> int"); }
STABLE_TORCH_LIBRARY_IMPL(momentum, CompositeExplicitAutograd, library) { library.impl("cpu_isa", cpu_isa); }
