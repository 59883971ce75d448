// A call that was read and checked, and running it.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "torch/direct/op.h"

namespace momentum::ops::direct {

enum Outcome : int {
  kDone = 0,
  kDeclined = 1,  // the op must take the call: it then says what is wrong, if something is; nothing was written
  kChanged = 2,   // what was prepared is no longer what is there; nothing was written
  kFailed = -1    // with Python's error set
};

// What the op makes of the arguments; nothing where it must take the call itself.
std::optional<std::function<void()>> checked_call(const Environment& env, const Op& op, PyObject* arguments,
                                                  const Supply& supply);

// Makes the version counters of lists of plain tensors grow; false where this torch does not tell how, or one has none.
using TensorLists = std::vector<const std::vector<PyObject*>*>;
bool bump_versions(const Environment& env, const TensorLists& lists);

// Calls `work` while other threads have the interpreter.
Outcome run_released(const Environment& env, const std::function<void()>& work);

}  // namespace momentum::ops::direct
