#include "torch/step_op.h"

#include "torch/boxed_source.h"
#include "torch/registration.h"
#include "torch/step_unpacker.h"

namespace momentum::ops {
std::vector<const RuleDescription*>& registered_rules() {
  static std::vector<const RuleDescription*> rules;
  return rules;
}

CheckedStep check_step(const RuleDescription& rule, const StepArguments& arguments, const TensorLoop& loop) {
  CheckedStep step{std::string(rule.name) + "_", {}, 0};
  // The device of the first param; of `steps` where the list is empty.
  const TensorInfo& first = arguments.params.empty() ? arguments.steps : arguments.params[0];
  step.device_index = first.device_index;
  step.call = StepUnpacker(rule, step.op.c_str(), arguments, {first.device_type, first.device_index}).unpack(loop);
  return step;
}

void run_step(const RuleDescription& rule, const CheckedStep& step) {
  if (!step.call.tensors.empty()) rule.run(step.op.c_str(), step.call, step.device_index);
}

void step(const RuleDescription& rule, const StableIValue* stack) {
  BoxedSource source(stack);
  run_step(rule, check_step(rule, take_step(rule, source), in_one_range));
}

}  // namespace momentum::ops
