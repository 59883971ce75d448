// The gradients of parameters, without a Python object for each: torch makes these when Python first looks at a gradient, which
// after a backward pass means all of them, at every step.
#pragma once

#include <memory>
#include <vector>

#include "torch/direct/objects.h"

namespace momentum::ops::direct {

class Gradients {
 public:
  // Those of a list of parameters. Null where one has none, or one is anything but a plain tensor, with numbers as they are
  // meant.
  static std::unique_ptr<Gradients> of(const Environment& env, PyObject* params);
  ~Gradients();

  size_t size() const { return parts_.size(); }
  AtenTensorHandle operator[](size_t i) const { return parts_[i].handle; }

 private:
  struct Part {
    AtenTensorHandle handle;  // keeps it alive
    const void *implementation, *object;
  };
  std::vector<Part> parts_;
};

}  // namespace momentum::ops::direct
