// What the ops of steps on a subset take: momentum::<rule>_subset_.
#pragma once

#include <sstream>
#include <string>

#include "core/subset.h"
#include "torch/subset_backend.h"

namespace momentum::ops {

struct SubsetDescription {
  const char* rule;
  const StateInfo* states;
  int state_count;
  const HyperInfo* hypers;
  int hyper_count;
  void (*run)(const char* op, const SubsetCall& call, int32_t device_index);
};

template <class Rule>
constexpr SubsetDescription describe_subset() {
  return {Rule::kName, Rule::kStates, subset_states<Rule>(), Rule::kHypers, hyper_count<Rule>(), backend::run_subset<Rule>};
}

// <rule>_subset_(params, grads, <states>, masks, steps, *, counts, lr, weight_decay, <hypers>, ...)
inline std::string subset_schema(const SubsetDescription& rule) {
  std::ostringstream s;
  char alias = 'a';
  const auto written = [&](const char* type) { s << ", Tensor(" << alias++ << "!)" << type; };
  s << rule.rule << "_subset_(Tensor(" << alias++ << "!)[] params, Tensor[] grads";
  for (int k = 0; k < rule.state_count; ++k) {
    written("[] ");
    s << rule.states[k].name;
  }
  written("[] masks");
  written(" steps");
  s << ", *, int[] counts, float[] lr, float[] weight_decay";
  s.precision(17);
  for (int k = 0; k < rule.hyper_count; ++k) {
    const HyperInfo& hyper = rule.hypers[k];
    s << ", ";
    if (hyper.kind == HyperKind::kFloat) {
      s << "float " << hyper.name << '=' << std::showpoint << hyper.value << std::noshowpoint;
    } else if (hyper.kind == HyperKind::kInt) {
      s << "int " << hyper.name << '=' << int64_t(hyper.value);
    } else {
      s << "bool " << hyper.name << '=' << (hyper.value != 0 ? "True" : "False");
    }
  }
  s << ", Tensor? lr_tensor=None, Tensor? weight_decay_tensor=None";
  for (int k = 0; k < rule.hyper_count; ++k) {
    if (rule.hypers[k].tensor) s << ", Tensor? " << rule.hypers[k].name << "_tensor=None";
  }
  s << ", Tensor? grad_scale=None, Tensor? found_inf=None, int decay=0, float max_lr=1.0, bool maximize=False, "
       "bool cautious=False, int axis=-1, int rest=0, float rest_scale=1.0, int interval=0, int phase=0, bool restart=False, "
       "int[] seeds=[0], int[] shards=[]) -> ()";
  return s.str();
}

}  // namespace momentum::ops
