// Arguments of a step as the dispatcher hands them over.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "torch/stack.h"
#include "torch/step_arguments.h"

namespace momentum::ops {

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

}  // namespace momentum::ops
