// Arguments of a boxed op, taken off the stack of the stable ABI by hand.
//
// The generic TORCH_BOX wrapper spends most of its time building shared pointers and asking for dtypes; a step over thousands
// of small tensors is bound by this work. Lists are therefore read straight through the C interface.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "torch/tensor_handle.h"

namespace momentum::ops {

class TensorList {
 public:
  explicit TensorList(StableListHandle list) : list_(list) {
    size_t count = 0;
    TORCH_ERROR_CODE_CHECK(torch_list_size(list_, &count));
    items_.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      StableIValue item = 0;
      TORCH_ERROR_CODE_CHECK(torch_list_get_item(list_, i, &item));
      items_.emplace_back(torch::stable::detail::to<AtenTensorHandle>(item));
    }
  }
  TensorList(TensorList&& other) noexcept : list_(std::exchange(other.list_, nullptr)), items_(std::move(other.items_)) {}
  TensorList& operator=(TensorList&&) = delete;
  ~TensorList() {
    if (list_ != nullptr) torch_delete_list(list_);
  }
  size_t size() const { return items_.size(); }
  AtenTensorHandle operator[](size_t i) const { return items_[i].get(); }

 private:
  StableListHandle list_;
  std::vector<TensorHandle> items_;
};

// Reads the arguments in the order of the schema. Every argument is taken exactly once, because taking it is what frees it.
class Stack {
 public:
  explicit Stack(const StableIValue* values) : values_(values) {}

  TensorList tensors() { return TensorList(torch::stable::detail::to<StableListHandle>(next())); }
  TensorHandle tensor() { return TensorHandle(torch::stable::detail::to<AtenTensorHandle>(next())); }
  std::optional<torch::stable::Tensor> optional_tensor() {
    return torch::stable::detail::to<std::optional<torch::stable::Tensor>>(next());
  }
  std::vector<double> floats() { return torch::stable::detail::to<std::vector<double>>(next()); }
  std::vector<int64_t> ints() { return torch::stable::detail::to<std::vector<int64_t>>(next()); }
  double number() { return torch::stable::detail::to<double>(next()); }
  int64_t integer() { return torch::stable::detail::to<int64_t>(next()); }
  bool boolean() { return torch::stable::detail::to<bool>(next()); }

 private:
  StableIValue next() { return *values_++; }
  const StableIValue* values_;
};

}  // namespace momentum::ops
