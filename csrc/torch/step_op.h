// The op of a rule: unpack, check, run.
#pragma once

#include <torch/csrc/stable/library.h>

#include "torch/description.h"

namespace momentum::ops {

// Takes the arguments of `step_schema(rule)` off the stack, checks all of them before anything is written, and runs the step.
void step(const RuleDescription& rule, const StableIValue* stack);

}  // namespace momentum::ops
