// Where a checked batch of transport problems is solved; like torch/backend.h, one definition per shared object.
#pragma once

#include "core/ot/batch.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

void solve_transport(const char* op, const ot::Batch& batch, int32_t device_index);

}  // namespace momentum::ops::backend
