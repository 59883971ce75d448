// Where a checked step on a subset is run; like torch/backend.h, one definition per shared object.
#pragma once

#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "core/subset.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

// Defined for Spam, Adam, Lion and Sgd.
template <class Rule>
void run_subset(const char* op, const SubsetCall& call, int32_t device_index);

}  // namespace momentum::ops::backend
