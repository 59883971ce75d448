// Arguments of a step read from Python's own objects.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "torch/direct/objects.h"
#include "torch/step_arguments.h"

namespace momentum::ops::direct {

// Thrown where an argument is anything but a plain tensor, list or number: the dispatcher then takes the call.
struct Declined {};

// Reads a tuple of arguments in order. What it returns points into the tensors, which the tuple keeps alive.
class Source {
 public:
  Source(const Environment& environment, PyObject* arguments);

  TensorInfos tensors();
  TensorInfo tensor() { return read(next()); }
  std::optional<TensorInfo> optional_tensor();
  std::vector<double> floats();
  std::vector<int64_t> ints();
  double number() { return as_number(next()); }
  int64_t integer() { return as_integer(next()); }
  bool boolean();

 private:
  PyObject* next();
  ptrdiff_t size_of(PyObject* list) const;
  double as_number(PyObject* object) const;
  int64_t as_integer(PyObject* object) const;
  TensorInfo read(PyObject* object) const;
  bool is_negated(PyObject* object) const;

  const Environment& env_;
  const Python& py_;
  PyObject* arguments_;
  ptrdiff_t size_, place_ = 0;
};

}  // namespace momentum::ops::direct
