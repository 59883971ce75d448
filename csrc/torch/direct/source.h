// Arguments of a step read from Python's own objects.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "torch/direct/gradients.h"
#include "torch/direct/objects.h"
#include "torch/direct/states.h"
#include "torch/step_arguments.h"

namespace momentum::ops::direct {

// Lists that are no objects of Python's.
struct Supply {
  Gradients* gradients = nullptr;
  const States* states = nullptr;
  // For each list that is supplied which columns of the states it consists of, one after the other; without any it is that of
  // the gradients.
  std::span<const std::vector<size_t>> lists;
};

// Reads a tuple of arguments in order. What it returns points into the tensors, which the tuple and the supply keep alive.
class Source {
 public:
  // Where the tuple has None in the place of a list, the next one of `supply` is taken.
  Source(const Environment& environment, PyObject* arguments, const Supply& supply);

  // As long as the list, and read by `read` as the checks go through the tensors: what is in the caches is looked at at once,
  // and threads share the work. All such lists are empty or of one length.
  TensorInfos tensors() { return list(false); }
  // Read by `begin`.
  TensorInfos tensors_at_once() { return list(true); }
  TensorInfo tensor() { return read(next()); }
  std::optional<TensorInfo> optional_tensor();
  std::vector<double> floats();
  std::vector<int64_t> ints();
  double number() { return as_number(next()); }
  int64_t integer() { return as_integer(next()); }
  bool boolean();

  // Reads what must be known before the checks go through the tensors: the first of each list, too.
  void begin() const;
  // Reads the lists in ranges that are then given to `body`; with the supply's states, looks at their step counts.
  void read(size_t count, const TensorBody& body) const;
  // Throws Declined where a tensor was read that is not what it seems to be.
  void finish() const;

 private:
  struct List {
    std::vector<PyObject*> items;
    bool gradients = false;       // in the place of items
    TensorInfo* infos = nullptr;  // of a vector that was handed out; moved since, but not copied
    int64_t size = 0;
    bool at_once = false;
  };

  PyObject* next();
  TensorInfos list(bool at_once);
  // The next list of the supply.
  List supplied();
  double as_number(PyObject* object) const;
  int64_t as_integer(PyObject* object) const;
  TensorInfo read(PyObject* object) const;
  // Of the interpreter it uses nothing.
  void read_part(const List& list, int64_t begin, int64_t end) const;

  const Environment& env_;
  const Python& py_;
  PyObject* arguments_;
  const Supply& supply_;
  ptrdiff_t size_, place_ = 0;
  size_t supplied_ = 0;
  std::vector<List> lists_;
  mutable std::atomic<bool> has_single_ = false;  // some tensor of a list has a single element
};

}  // namespace momentum::ops::direct
