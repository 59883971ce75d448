#include "torch/direct/op.h"

#include <string>
#include <utility>

#include "torch/registration.h"
#include "torch/step_op.h"
#include "torch/subset_unpacker.h"

namespace momentum::ops::direct {
namespace {

// Reads the tensors of a call as the checks go through them, and keeps what was checked: `check` takes the loop.
template <class Check>
auto checked(Source& source, const Check& check) {
  source.begin();
  auto result = std::make_shared<const decltype(check(TensorLoop{}))>(
      check([&](size_t count, const TensorBody& body) { source.read(count, body); }));
  source.finish();
  return result;
}

class Step : public Op {
 public:
  explicit Step(const RuleDescription& rule) : rule_(rule) {}

  std::function<void()> check(Source& source) const override {
    const StepArguments arguments = take_step(rule_, source);
    const auto step = checked(source, [&](const TensorLoop& loop) { return check_step(rule_, arguments, loop); });
    return [this, step] { run_step(rule_, *step); };
  }

 private:
  const RuleDescription& rule_;
};

class SubsetStep : public Op {
 public:
  explicit SubsetStep(const SubsetDescription& rule) : rule_(rule) {}

  std::function<void()> check(Source& source) const override {
    const SubsetArguments arguments = take_subset(rule_, source);
    const auto step = checked(source, [&](const TensorLoop& loop) { return check_subset(rule_, arguments, loop); });
    return [this, step] { run_subset(rule_, *step); };
  }

 private:
  const SubsetDescription& rule_;
};

}  // namespace

std::unique_ptr<Op> Op::find(const char* name) {
  for (const RuleDescription* rule : registered_rules()) {
    if (std::string(rule->name) == name) return std::make_unique<Step>(*rule);
  }
  for (const SubsetDescription* rule : registered_subsets()) {
    if (subset_op(*rule) == std::string(name) + "_") return std::make_unique<SubsetStep>(*rule);
  }
  return nullptr;
}

}  // namespace momentum::ops::direct
