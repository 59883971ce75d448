// Where a checked call of SAM-GS runs; like torch/backend.h, one definition per shared object.
#pragma once

#include "core/samgs.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

void decide_samgs(const char* op, const SamgsDecision& decision, int32_t device_index);
void run_samgs(const char* op, const SamgsCall& call, int32_t device_index);

}  // namespace momentum::ops::backend
