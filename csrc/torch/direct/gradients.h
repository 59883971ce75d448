// The gradients of parameters, without a Python object for each: torch makes these when Python first looks at a gradient, which
// after a backward pass means all of them, at every step.
#pragma once

#include <memory>
#include <vector>

#include "torch/direct/objects.h"
#include "torch/tensor_handle.h"

namespace momentum::ops::direct {

class Gradients {
 public:
  // Those of a list of parameters. Null where one has none, or one is anything but a plain tensor, with numbers as they are
  // meant.
  static std::unique_ptr<Gradients> of(const Environment& env, PyObject* params);
  ~Gradients();

  size_t size() const { return handles_.size(); }
  AtenTensorHandle operator[](size_t i) const { return handles_[i].get(); }

 private:
  struct Parts {
    const void *implementation, *object;
  };
  std::vector<Parts> parts_;
  std::vector<TensorHandle> handles_;  // keep them alive
};

}  // namespace momentum::ops::direct
