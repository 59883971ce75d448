// The arguments of a step on a subset in the order of its schema (subset_schema.h), whoever calls; compare step_arguments.h.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "torch/step_arguments.h"
#include "torch/subset_schema.h"

namespace momentum::ops {

struct SubsetArguments {
  TensorInfos params, grads;
  std::vector<TensorInfos> states;
  TensorInfos masks;
  TensorInfo steps;

  std::vector<int64_t> counts;
  std::vector<double> lr, weight_decay;
  double hypers[kMaxHypers] = {};
  std::optional<TensorInfo> lr_tensor, weight_decay_tensor, hyper_tensors[kMaxHypers], grad_scale, found_inf;
  int64_t decay = 0;
  double max_lr = 1.0;
  bool maximize = false, cautious = false;
  int64_t axis = -1, rest = 0;
  double rest_scale = 1.0;
  int64_t interval = 0, phase = 0;
  bool restart = false;
  std::vector<int64_t> seeds, shards;
};

template <class Source>
SubsetArguments take_subset(const SubsetDescription& rule, Source& source) {
  SubsetArguments a;
  a.params = source.tensors();
  a.grads = source.tensors();
  a.states.reserve(size_t(rule.state_count));
  for (int k = 0; k < rule.state_count; ++k) a.states.push_back(source.tensors());
  a.masks = source.tensors();
  a.steps = source.tensor();
  a.counts = source.ints();
  a.lr = source.floats();
  a.weight_decay = source.floats();
  for (int k = 0; k < rule.hyper_count; ++k) {
    const HyperKind kind = rule.hypers[k].kind;
    a.hypers[k] = kind == HyperKind::kFloat ? source.number()
                  : kind == HyperKind::kInt ? double(source.integer())
                                            : double(source.boolean());
  }
  a.lr_tensor = source.optional_tensor();
  a.weight_decay_tensor = source.optional_tensor();
  for (int k = 0; k < rule.hyper_count; ++k) {
    if (rule.hypers[k].tensor) a.hyper_tensors[k] = source.optional_tensor();
  }
  a.grad_scale = source.optional_tensor();
  a.found_inf = source.optional_tensor();
  a.decay = source.integer();
  a.max_lr = source.number();
  a.maximize = source.boolean();
  a.cautious = source.boolean();
  a.axis = source.integer();
  a.rest = source.integer();
  a.rest_scale = source.number();
  a.interval = source.integer();
  a.phase = source.integer();
  a.restart = source.boolean();
  a.seeds = source.ints();
  a.shards = source.ints();
  return a;
}

}  // namespace momentum::ops
