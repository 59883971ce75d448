// Where a checked call of StableMax runs; like torch/backend.h, one definition per shared object.
#pragma once

#include "core/stablemax.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

void run_stablemax_loss(const char* op, const StableMaxCall& call, int32_t device_index);
void run_stablemax_grad(const char* op, const StableMaxCall& call, int32_t device_index);

}  // namespace momentum::ops::backend
