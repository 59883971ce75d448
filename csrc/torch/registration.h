// Registers the op of a rule with torch.
#pragma once

#include <torch/csrc/stable/library.h>

#include <vector>

#include "torch/schema.h"
#include "torch/step_op.h"

namespace momentum::ops {

// All rules of this shared object.
std::vector<const RuleDescription*>& registered_rules();

template <class Rule>
class Registration {
 public:
  Registration() {
    using torch::stable::detail::StableLibrary;
    const std::string op = std::string(Rule::kName) + "_";
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(step_schema(description()).c_str());
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl(op.c_str(), [](StableIValue* stack, uint64_t, uint64_t) { step(description(), stack); });
    registered_rules().push_back(&description());
  }

 private:
  static const RuleDescription& description() {
    static constexpr RuleDescription rule = describe_rule<Rule>();
    return rule;
  }
};

}  // namespace momentum::ops
