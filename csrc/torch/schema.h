// The schema of a rule's op, written from its description.
#pragma once

#include <string>

#include "torch/description.h"

namespace momentum::ops {

// momentum::<name>_(params, grads, <states>, residuals, ema_params, scalars, steps, totals, *, lr, weight_decay, <hypers>,
// ...). step_op.cpp takes the arguments in this order.
std::string step_schema(const RuleDescription& rule);

}  // namespace momentum::ops
