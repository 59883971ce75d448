// The op of a rule: unpack, check, run.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>

#include "torch/step_arguments.h"

namespace momentum::ops {

// A step that may run: nothing in it refers to the arguments it was made from.
struct CheckedStep {
  std::string op;
  StepCall call;
  int32_t device_index;
};

// Refuses whatever a kernel must not see.
CheckedStep check_step(const RuleDescription& rule, const StepArguments& arguments, const TensorLoop& loop);
void run_step(const RuleDescription& rule, const CheckedStep& step);

// The boxed kernel: takes the arguments of `step_schema(rule)` off the stack, checks all of them before anything is written,
// and runs the step.
void step(const RuleDescription& rule, const StableIValue* stack);

}  // namespace momentum::ops
