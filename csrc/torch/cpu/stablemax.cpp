#include "cpu/stablemax.h"

#include "torch/cpu/parallel.h"
#include "torch/stablemax_backend.h"

namespace momentum::ops::backend {

void run_stablemax_loss(const char*, const StableMaxCall& call, int32_t) { cpu::run_stablemax_loss(call, on_torch_threads); }
void run_stablemax_grad(const char*, const StableMaxCall& call, int32_t) { cpu::run_stablemax_grad(call, on_torch_threads); }

}  // namespace momentum::ops::backend
