#include "cpu/samgs.h"

#include "torch/cpu/parallel.h"
#include "torch/samgs_backend.h"

namespace momentum::ops::backend {

void decide_samgs(const char*, const SamgsDecision& decision, int32_t) { cpu::decide_samgs(decision); }
void run_samgs(const char*, const SamgsCall& call, int32_t) { cpu::run_samgs(call, on_torch_threads); }

}  // namespace momentum::ops::backend
