// The ops of steps on a subset: momentum::<rule>_subset_ for SPAM, Adam, Lion and SGD. See core/subset.h.
#include <torch/csrc/stable/library.h>

#include <string>

#include "torch/boxed_source.h"
#include "torch/subset_backend.h"
#include "torch/subset_unpacker.h"

namespace momentum::ops {

std::vector<const SubsetDescription*>& registered_subsets() {
  static std::vector<const SubsetDescription*> rules;
  return rules;
}

namespace {

using torch::stable::detail::StableLibrary;

void step_subset(const SubsetDescription& rule, const StableIValue* stack) {
  BoxedSource source(stack);
  run_subset(rule, check_subset(rule, take_subset(rule, source), in_one_range));
}

template <class Rule>
struct SubsetRegistration {
  SubsetRegistration() {
    const std::string op = subset_op(description());
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(subset_schema(description()).c_str());
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl(op.c_str(), [](StableIValue* stack, uint64_t, uint64_t) { step_subset(description(), stack); });
    registered_subsets().push_back(&description());
  }

 private:
  static const SubsetDescription& description() {
    static constexpr SubsetDescription rule = describe_subset<Rule>();
    return rule;
  }
};

const SubsetRegistration<rules::Adam> adam;
const SubsetRegistration<rules::Lion> lion;
const SubsetRegistration<rules::Sgd> sgd;
const SubsetRegistration<rules::Spam> spam;

}  // namespace
}  // namespace momentum::ops
