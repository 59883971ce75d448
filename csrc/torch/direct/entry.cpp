// What the Python side calls through ctypes with the interpreter held (see python/momentum/_direct.py): a step whose
// arguments are read from Python's objects. It does what the op does; anything unusual is left to the op.
#include <exception>
#include <optional>
#include <utility>

#include "torch/direct/prepared.h"
#include "torch/direct/run.h"
#include "torch/direct/states.h"

namespace momentum::ops::direct {
namespace {

Environment environment{};

// What a step writes: lists, and the tensors in them.
struct Written {
  std::vector<PyObject*> lists;
  std::vector<std::vector<PyObject*>> tensors;
};

std::optional<Written> read_written(PyObject* written) {
  try {
    Written read{items_of(environment, written), {}};
    for (PyObject* list : read.lists) {
      for (const PyObject* tensor : read.tensors.emplace_back(items_of(environment, list))) {
        if (!is_plain(environment, tensor)) throw Declined{};
      }
    }
    return read;
  } catch (const Declined&) {
  }
  environment.python->clear_error();
  return std::nullopt;
}

// Makes the version counters grow of all that is written, as torch's own function does; false, with its error set, where it
// would refuse.
bool announce(const Written& written) {
  TensorLists lists;
  for (const std::vector<PyObject*>& list : written.tensors) lists.push_back(&list);
  if (bump_versions(environment, lists)) return true;
  for (PyObject* list : written.lists) {
    PyObject* done = environment.python->call_with(environment.increment_version, list, nullptr);
    if (done == nullptr) return false;
    environment.python->release(done);
  }
  return true;
}

PreparedCall read_prepared_call(PyObject* call) {
  const Environment& env = environment;
  const auto item = [&](ptrdiff_t i) {
    PyObject* part = env.python->tuple_item(call, i);
    if (part == nullptr) throw Declined{};
    return part;
  };
  const auto number = [&](ptrdiff_t i) { return env.python->as_integer(item(i)); };
  PreparedCall read{reinterpret_cast<const Op*>(number(0)),
                    items_of(env, item(1)),
                    items_of(env, item(2)),
                    {items_of(env, item(3)), items_of(env, item(4)), {uintptr_t(number(6)), ptrdiff_t(number(7))}},
                    {item(5)},
                    {}};
  for (PyObject* list : items_of(env, item(8))) {
    std::vector<size_t>& columns = read.lists.emplace_back();
    for (PyObject* column : items_of(env, list)) columns.push_back(size_t(env.python->as_integer(column)));
  }
  return read;
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
MOMENTUM_EXPORT int momentum_direct_step(const void* op, direct::PyObject* arguments, void* gradients,
                                         direct::PyObject* written) {
  const std::vector<size_t> only_gradients[1];
  direct::Supply supply;
  if (gradients != nullptr) supply = {static_cast<direct::Gradients*>(gradients), nullptr, only_gradients};
  const auto call = direct::checked_call(direct::environment, *static_cast<const direct::Op*>(op), arguments, supply);
  if (!call) return direct::kDeclined;
  const auto read = direct::read_written(written);
  if (!read) return direct::kDeclined;
  if (!direct::announce(*read)) return direct::kFailed;
  return direct::run_released(direct::environment, *call);
}

// A step to be run again and again; see Prepared. `calls`: a list of tuples of an op's address, params, dictionaries of states,
// keys and defaults as for momentum_direct_states, the tensor of step counts, where its elements lie and how large they are,
// and for each list that is supplied a list of numbers. Null where none can be prepared. What is given must outlive it.
MOMENTUM_EXPORT void* momentum_direct_prepare(direct::PyObject* calls, direct::PyObject* idle) {
  const direct::Environment& env = direct::environment;
  if (!direct::Prepared::is_possible(env)) return nullptr;
  try {
    std::vector<direct::PreparedCall> given;
    for (direct::PyObject* call : items_of(env, calls)) given.push_back(direct::read_prepared_call(call));
    return new direct::Prepared(env, std::move(given), items_of(env, idle));
  } catch (const direct::Declined&) {
  } catch (const std::exception&) {
  }
  env.python->clear_error();
  return nullptr;
}

// `expected`: see Optimizer. `arguments`: a tuple of the arguments of each op, see Prepared.
MOMENTUM_EXPORT int momentum_direct_run(const void* prepared, direct::PyObject* state, direct::PyObject* groups,
                                        direct::PyObject* expected, direct::PyObject* arguments) {
  return static_cast<const direct::Prepared*>(prepared)->run({state, groups, expected}, arguments);
}

MOMENTUM_EXPORT void momentum_direct_forget(void* prepared) { delete static_cast<direct::Prepared*>(prepared); }

// Whether two lists hold the same objects.
MOMENTUM_EXPORT int momentum_direct_same_items(direct::PyObject* list, direct::PyObject* other) {
  return direct::same_items(*direct::environment.python, list, other);
}

// Whether a dictionary holds the same objects as two lists, in their order.
MOMENTUM_EXPORT int momentum_direct_same_entries(direct::PyObject* dict, direct::PyObject* keys, direct::PyObject* values) {
  return direct::same_entries(*direct::environment.python, dict, keys, values);
}

// For each key a list of what a list of dictionaries has under it, or its default where that is not None. The first key's are
// tensors, which are looked at and not returned: they must lie one after the other, `size` bytes apart, from `address` on. None
// where they do not, something is missing, or anything is unusual.
MOMENTUM_EXPORT direct::PyObject* momentum_direct_states(direct::PyObject* dicts, direct::PyObject* keys,
                                                         direct::PyObject* defaults, uintptr_t address, ptrdiff_t size) {
  const direct::Environment& env = direct::environment;
  direct::PyObject* states = nullptr;
  try {
    const direct::StateKeys read{items_of(env, keys), items_of(env, defaults), {address, size}};
    const direct::States found(env, items_of(env, dicts), read);
    found.check_steps(0, env.python->list_size(dicts));
    states = direct::list_of(env, found);
  } catch (const direct::Declined&) {
  } catch (const std::exception&) {
  }
  if (states != nullptr) return states;
  env.python->clear_error();
  env.python->acquire(env.none);
  return env.none;
}
