// A step that is run again and again: which tensors go in it is prepared once, and all that Python would do between two steps
// - compare, look up gradients and states, make lists - is done here.
#pragma once

#include <utility>
#include <vector>

#include "torch/direct/run.h"
#include "torch/direct/states.h"

namespace momentum::ops::direct {

// One op's part of a step. All objects are borrowed: whoever prepares a step keeps them alive for as long as it is used.
struct PreparedCall {
  const Op* op;
  std::vector<PyObject*> params;
  std::vector<PyObject*> dicts;  // their states
  StateKeys state_keys;
  std::vector<PyObject*> steps;            // the tensor of step counts
  std::vector<std::vector<size_t>> lists;  // see Supply
};

// What an optimizer has, and what it must have.
struct Optimizer {
  PyObject* state;   // a dictionary from parameters to their states
  PyObject* groups;  // a list of dictionaries
  // A tuple of tuples: keys and values of the state, or None in their place; then of each group keys, values and, unless they
  // are left out, params and what is in these.
  PyObject* expected;
};

class Prepared {
 public:
  // `idle`: parameters that must have no gradient; borrowed, too.
  Prepared(const Environment& env, std::vector<PreparedCall> calls, std::vector<PyObject*> idle)
      : env_(env), calls_(std::move(calls)), idle_(std::move(idle)) {}

  // Whether this torch has what it takes.
  static bool is_possible(const Environment& env);

  // `arguments`: a tuple of the arguments of each op, in order, with None for each list that is supplied. Either all calls are
  // run or none.
  Outcome run(const Optimizer& optimizer, PyObject* arguments) const;

 private:
  const Environment& env_;
  const std::vector<PreparedCall> calls_;
  const std::vector<PyObject*> idle_;
};

// Whether two lists hold the same objects.
bool same_items(const Python& python, PyObject* list, PyObject* other);
// Whether a dictionary holds the same objects as two lists, in their order.
bool same_entries(const Python& python, PyObject* dict, PyObject* keys, PyObject* values);

}  // namespace momentum::ops::direct
