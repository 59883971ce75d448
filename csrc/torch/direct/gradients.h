// The gradients of parameters, without a Python object for each: torch makes these when Python first looks at a gradient, which
// after a backward pass means all of them, at every step.
#pragma once

#include <memory>
#include <vector>

#include "torch/direct/objects.h"

namespace momentum::ops::direct {

class Gradients {
 public:
  // Whether this torch tells them.
  static bool are_known(const Environment& env) { return env.torch.gradient != nullptr && env.object_place >= 0; }
  // Those of a list of parameters, held. Null where one has none, or one is anything but a plain tensor, with numbers as they
  // are meant.
  static std::unique_ptr<Gradients> of(const Environment& env, PyObject* params);

  // Those of parameters that outlive this; to be found, and then held.
  Gradients(const Environment& env, std::vector<PyObject*> params);
  // The caller has the interpreter.
  ~Gradients();
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;

  size_t size() const { return params_.size(); }
  AtenTensorHandle operator[](size_t i) const { return found_[i]; }

  // Whether plain parameters have no gradient, none of them; false where one is no plain tensor.
  static bool are_missing(const Environment& env, const std::vector<PyObject*>& params);

  // Finds those of parameters [begin, end), unless all are held; of the interpreter it uses nothing. Throws Declined where a
  // parameter is no plain tensor, has no gradient, or its gradient is of a subclass.
  void find(int64_t begin, int64_t end);
  // Throws Declined where a gradient of a single element is negated lazily, being the imaginary part of a complex conjugate.
  void check_meaning(size_t i) const;
  // Keeps all of them alive.
  void hold();
  // Lets them go. The caller must have released the interpreter: whoever lets go of the last reference to one takes it.
  void drop();

 private:
  void let_go_of(int64_t begin, int64_t end);
  void give_back();

  const Environment& env_;
  std::vector<PyObject*> params_;
  std::vector<AtenTensorHandle> found_;  // the parameter's own; once held, ours
  std::vector<const void*> implementations_;
  std::vector<AtenTensorHandle> handles_;  // once held
};

}  // namespace momentum::ops::direct
