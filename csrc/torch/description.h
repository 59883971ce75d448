// A rule's description of itself as run-time data, so that schemas, unpacking and checks are written once for all rules.
#pragma once

#include <cstdint>
#include <vector>

#include "core/call.h"
#include "core/reductions.h"
#include "core/rule.h"
#include "torch/backend.h"

namespace momentum::ops {

struct RuleDescription {
  const char* name;
  const StateInfo* states;
  int state_count;
  const HyperInfo* hypers;
  int hyper_count;
  int scalar_count;
  int reduction_count;
  bool uses_segments;
  bool matrices_only;  // see kMatrices
  int64_t (*total_count)(const TensorArgsVector& tensors, const CommonArgs& common);
  void (*run)(const char* op, const StepCall& call, int32_t device_index);
};

template <class Rule>
constexpr RuleDescription describe_rule() {
  static_assert(hyper_count<Rule>() <= kMaxHypers && state_count<Rule>() <= kMaxStates);
  return {Rule::kName,           Rule::kStates,        state_count<Rule>(),     Rule::kHypers,
          hyper_count<Rule>(),   scalar_count<Rule>(), reduction_count<Rule>(), uses_segments<Rule>(),
          matrices_only<Rule>(), total_count<Rule>,    backend::run<Rule>};
}

}  // namespace momentum::ops
