#include "torch/step_op.h"

#include <string>
#include <utility>
#include <vector>

#include "torch/registration.h"
#include "torch/stack.h"
#include "torch/step_unpacker.h"

namespace momentum::ops {
namespace {

// The dispatcher's stack, keeping the tensors that were taken off it.
class BoxedSource {
 public:
  explicit BoxedSource(const StableIValue* stack) : stack_(stack) {}

  TensorInfos tensors() {
    const TensorList& list = lists_.emplace_back(stack_.tensors());
    TensorInfos infos;
    infos.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) infos.push_back(describe(list[i]));
    return infos;
  }
  TensorInfos tensors_at_once() { return tensors(); }
  TensorInfo tensor() { return describe(single_.emplace_back(stack_.tensor()).get()); }
  std::optional<TensorInfo> optional_tensor() {
    const std::optional<torch::stable::Tensor>& tensor = optional_.emplace_back(stack_.optional_tensor());
    return tensor ? std::optional(describe(tensor->get())) : std::nullopt;
  }
  std::vector<double> floats() { return stack_.floats(); }
  std::vector<int64_t> ints() { return stack_.ints(); }
  double number() { return stack_.number(); }
  int64_t integer() { return stack_.integer(); }
  bool boolean() { return stack_.boolean(); }

 private:
  Stack stack_;
  std::vector<TensorList> lists_;
  std::vector<TensorHandle> single_;
  std::vector<std::optional<torch::stable::Tensor>> optional_;
};

}  // namespace

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
  const TensorLoop loop = [](size_t count, const TensorBody& body) { body(0, count); };
  run_step(rule, check_step(rule, take_step(rule, source), loop));
}

}  // namespace momentum::ops
