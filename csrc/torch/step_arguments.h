// The arguments of a step in the order of its schema, whoever calls: the dispatcher (stack.h) or Python itself (direct.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/left_as_is.h"
#include "torch/description.h"
#include "torch/tensor_info.h"

namespace momentum::ops {

using TensorInfos = VectorLeftAsIs<TensorInfo>;

struct StepArguments {
  TensorInfos params, grads;
  std::vector<TensorInfos> states;
  TensorInfos scales, residuals, ema_params, scalars;
  TensorInfo steps, totals;

  std::vector<double> lr, weight_decay;
  double hypers[kMaxHypers] = {};
  std::optional<TensorInfo> lr_tensor, weight_decay_tensor, hyper_tensors[kMaxHypers], grad_scale, found_inf;
  int64_t decay = 0;
  double max_lr = 1.0;
  bool maximize = false;
  int64_t cautious = 0, residual = 0, rounding = 0;
  std::vector<int64_t> seeds, shards;
  double ema_decay = 0.0;
  std::vector<int64_t> state_formats;
  int64_t perpendicular = 0, stage = 0;
};

// Goes through the tensors of a call: `body` is given ranges that cover 0 .. count, by several threads at once. Nothing but the
// first tensors of the lists may be looked at before, the scales apart.
using TensorBody = std::function<void(size_t begin, size_t end)>;
using TensorLoop = std::function<void(size_t count, const TensorBody& body)>;
inline void in_one_range(size_t count, const TensorBody& body) { body(0, count); }

// `source` gives one argument after the other and must outlive what is made of the tensors. It may leave reading tensors to a
// TensorLoop, except for those asked for at once.
template <class Source>
StepArguments take_step(const RuleDescription& rule, Source& source) {
  StepArguments a;
  a.params = source.tensors();
  a.grads = source.tensors();
  a.states.reserve(size_t(rule.state_count));
  for (int k = 0; k < rule.state_count; ++k) a.states.push_back(source.tensors());
  a.scales = source.tensors_at_once();
  for (TensorInfos* list : {&a.residuals, &a.ema_params, &a.scalars}) *list = source.tensors();
  a.steps = source.tensor();
  a.totals = source.tensor();
  a.lr = source.floats();
  a.weight_decay = source.floats();
  for (int k = 0; k < rule.hyper_count; ++k) {
    switch (rule.hypers[k].kind) {
      case HyperKind::kFloat:
        a.hypers[k] = source.number();
        break;
      case HyperKind::kInt:
        a.hypers[k] = double(source.integer());
        break;
      case HyperKind::kBool:
        a.hypers[k] = source.boolean() ? 1.0 : 0.0;
        break;
    }
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
  a.cautious = source.integer();
  a.residual = source.integer();
  a.rounding = source.integer();
  a.seeds = source.ints();
  a.shards = source.ints();
  a.ema_decay = source.number();
  a.state_formats = source.ints();
  a.perpendicular = source.integer();
  a.stage = source.integer();
  return a;
}

}  // namespace momentum::ops
