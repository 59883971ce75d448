// What the Python side calls through ctypes with the interpreter held (see python/momentum/_direct.py): a step whose
// arguments are read from Python's objects. It does what the op does; anything unusual is left to the op.
#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "torch/direct/op.h"
#include "torch/direct/ranges.h"
#include "torch/direct/states.h"

namespace momentum::ops::direct {
namespace {

Environment environment{};

enum Outcome : int { kDone = 0, kDeclined = 1, kFailed = -1 };

// A call that is certain to run, and what it writes.
struct Ready {
  std::function<void()> run;
  std::vector<PyObject*> lists, tensors;
};

// Nothing where the op must take the call: it then says what is wrong, if something is.
std::optional<Ready> read(const Op& op, PyObject* arguments, const Gradients* gradients, PyObject* written) {
  try {
    Source source(environment, arguments, gradients);
    Ready ready{op.check(source), items_of(environment, written), {}};
    for (PyObject* list : ready.lists) {
      for (PyObject* tensor : items_of(environment, list)) {
        if (!is_plain(environment, tensor)) throw Declined{};
        ready.tensors.push_back(tensor);
      }
    }
    return ready;
  } catch (const Declined&) {
  } catch (const std::exception&) {
  }
  environment.python->clear_error();
  return std::nullopt;
}

bool bump_versions(const std::vector<PyObject*>& tensors) {
  const auto bump = environment.torch.bump_version;
  if (bump == nullptr) return false;
  try {
    in_ranges(int64_t(tensors.size()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) bump(handle_of(environment, tensors[size_t(i)]));
    });
  } catch (...) {
    return false;
  }
  return true;
}

// Makes the version counters grow of all that is written, as torch's own function does; false, with its error set, where it
// would refuse.
bool announce(const Ready& ready) {
  if (bump_versions(ready.tensors)) return true;
  for (PyObject* list : ready.lists) {
    PyObject* done = environment.python->call_with(environment.increment_version, list, nullptr);
    if (done == nullptr) return false;
    environment.python->release(done);
  }
  return true;
}

}  // namespace
}  // namespace momentum::ops::direct

using namespace momentum::ops;

#define MOMENTUM_EXPORT extern "C" __attribute__((visibility("default")))

// Takes what the process's torch looks like from Python: see Environment and TorchFunctions. Returns whether direct calls are
// possible.
MOMENTUM_EXPORT int momentum_direct_open(direct::PyObject* tensor_type, direct::PyObject* parameter_type,
                                         direct::PyObject* dict_type, direct::PyObject* none,
                                         direct::PyObject* increment_version, ptrdiff_t type_place, ptrdiff_t tensor_place,
                                         ptrdiff_t object_place, const char* bump_version, const char* gradient) {
  const direct::Python* python = direct::Python::get();
  if (python == nullptr) return 0;
  direct::environment = {python,         tensor_type,
                         parameter_type, dict_type,
                         none,           increment_version,
                         type_place,     tensor_place,
                         object_place,   direct::TorchFunctions::find(bump_version, gradient)};
  return 1;
}

// An op, by its name without the underscore, for as long as the process lives; null for anything else.
MOMENTUM_EXPORT const void* momentum_direct_op(const char* name) { return direct::Op::find(name).release(); }

// The gradients of a list of parameters, to be given to a step in its place of None and let go of after it. Null where the
// caller must look at them himself.
MOMENTUM_EXPORT void* momentum_direct_hold_gradients(direct::PyObject* params) {
  try {
    return direct::Gradients::of(direct::environment, params).release();
  } catch (const direct::Declined&) {
  } catch (const std::exception&) {
  }
  direct::environment.python->clear_error();
  return nullptr;
}

MOMENTUM_EXPORT void momentum_direct_drop_gradients(void* gradients) { delete static_cast<direct::Gradients*>(gradients); }

// `arguments`: a tuple of the op's arguments in the order of its schema. `gradients` may be null. The version counters of the
// tensors in `written`, a list of lists, grow once the step is certain to run: what is looked at in the tensors is in the
// caches then, and no longer when the kernels have run.
MOMENTUM_EXPORT int momentum_direct_step(const void* op, direct::PyObject* arguments, const void* gradients,
                                         direct::PyObject* written) {
  const auto ready =
      direct::read(*static_cast<const direct::Op*>(op), arguments, static_cast<const direct::Gradients*>(gradients), written);
  if (!ready) return direct::kDeclined;
  if (!direct::announce(*ready)) return direct::kFailed;
  const direct::Python& python = *direct::environment.python;
  void* thread = python.release_interpreter();
  std::string failure;
  try {
    ready->run();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  python.take_interpreter(thread);
  if (failure.empty()) return direct::kDone;
  python.raise(*python.runtime_error, failure.c_str());
  return direct::kFailed;
}

// Whether two lists hold the same objects.
MOMENTUM_EXPORT int momentum_direct_same_items(direct::PyObject* list, direct::PyObject* other) {
  const direct::Python& python = *direct::environment.python;
  const ptrdiff_t count = python.list_size(list);
  if (count != python.list_size(other)) return 0;
  for (ptrdiff_t i = 0; i < count; ++i) {
    if (python.list_item(list, i) != python.list_item(other, i)) return 0;
  }
  return 1;
}

// Whether a dictionary holds the same objects as two lists, in their order.
MOMENTUM_EXPORT int momentum_direct_same_entries(direct::PyObject* dict, direct::PyObject* keys, direct::PyObject* values) {
  const direct::Python& python = *direct::environment.python;
  if (python.dict_size(dict) != python.list_size(keys)) return 0;
  ptrdiff_t place = 0;
  direct::PyObject *key = nullptr, *value = nullptr;
  for (ptrdiff_t i = 0; python.dict_next(dict, &place, &key, &value) != 0; ++i) {
    if (key != python.list_item(keys, i) || value != python.list_item(values, i)) return 0;
  }
  return 1;
}

// For each key a list of what a list of dictionaries has under it, or its default where that is not None. The first key's are
// tensors, which are looked at and not returned: they must lie one after the other, `size` bytes apart, from `address` on. None
// where they do not, something is missing, or anything is unusual.
MOMENTUM_EXPORT direct::PyObject* momentum_direct_states(direct::PyObject* dicts, direct::PyObject* keys,
                                                         direct::PyObject* defaults, uintptr_t address, ptrdiff_t size) {
  const direct::Environment& env = direct::environment;
  direct::PyObject* states = nullptr;
  try {
    states = direct::read_states(env, dicts, keys, defaults, {address, size});
  } catch (const direct::Declined&) {
  } catch (const std::exception&) {
  }
  if (states != nullptr) return states;
  env.python->clear_error();
  env.python->acquire(env.none);
  return env.none;
}
