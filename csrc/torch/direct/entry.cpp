// What the Python side calls through ctypes with the interpreter held (see python/momentum/_direct.py): a step whose
// arguments are read from Python's objects. It does what the op does; anything unusual is left to the op.
#include <cstring>
#include <exception>

#include "torch/direct/source.h"
#include "torch/registration.h"
#include "torch/step_op.h"

namespace momentum::ops::direct {
namespace {

Environment environment{};

enum Outcome : int { kDone = 0, kDeclined = 1, kFailed = -1 };

// The step, ready to run, or nothing where the op must take the call: it then says what is wrong, if something is.
std::optional<CheckedStep> read(const RuleDescription& rule, PyObject* arguments) {
  try {
    Source source(environment, arguments);
    return check_step(rule, take_step(rule, source));
  } catch (const Declined&) {
  } catch (const std::exception&) {
  }
  environment.python->clear_error();
  return std::nullopt;
}

}  // namespace
}  // namespace momentum::ops::direct

using namespace momentum::ops;

#define MOMENTUM_EXPORT extern "C" __attribute__((visibility("default")))

// Takes what the process's torch looks like from Python: see Environment. Returns whether direct calls are possible.
MOMENTUM_EXPORT int momentum_direct_open(direct::PyObject* tensor_type, direct::PyObject* parameter_type,
                                         direct::PyObject* dict_type, direct::PyObject* none, ptrdiff_t type_place,
                                         ptrdiff_t tensor_place) {
  const direct::Python* python = direct::Python::get();
  if (python == nullptr) return 0;
  direct::environment = {python, tensor_type, parameter_type, dict_type, none, type_place, tensor_place};
  return 1;
}

// The rule of an op, by its name without the underscore; null for anything else.
MOMENTUM_EXPORT const void* momentum_direct_rule(const char* name) {
  for (const RuleDescription* rule : registered_rules()) {
    if (std::strcmp(rule->name, name) == 0) return rule;
  }
  return nullptr;
}

// `arguments`: a tuple of the op's arguments in the order of its schema. `announce` is called without arguments once the step
// is certain to run: what it looks at in the tensors is in the caches then, and no longer when the kernels have run.
MOMENTUM_EXPORT int momentum_direct_step(const void* rule_pointer, direct::PyObject* arguments, direct::PyObject* announce) {
  const auto& rule = *static_cast<const RuleDescription*>(rule_pointer);
  const std::optional<CheckedStep> step = direct::read(rule, arguments);
  if (!step) return direct::kDeclined;
  const direct::Python& python = *direct::environment.python;
  direct::PyObject* announced = python.call(announce, nullptr);
  if (announced == nullptr) return direct::kFailed;
  python.release(announced);
  void* thread = python.release_interpreter();
  std::string failure;
  try {
    run_step(rule, *step);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  python.take_interpreter(thread);
  if (failure.empty()) return direct::kDone;
  python.raise(*python.runtime_error, failure.c_str());
  return direct::kFailed;
}

// Brings the objects of a list, tensors or dictionaries, and what is read of them into the caches. `list` must be one.
MOMENTUM_EXPORT void momentum_direct_fetch(direct::PyObject* list) {
  const direct::Environment& env = direct::environment;
  const direct::Walk items(env, list, env.python->list_size(list));
  for (ptrdiff_t i = 0; i < items.size(); ++i) items[i];
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

// Whether the tensors of a list lie in memory one after the other, `size` bytes apart, from `address` on; -1 where one of them
// is no plain tensor.
MOMENTUM_EXPORT int momentum_direct_are_elements(direct::PyObject* list, uintptr_t address, ptrdiff_t size) {
  const direct::Environment& env = direct::environment;
  const direct::Walk items(env, list, env.python->list_size(list));
  for (ptrdiff_t i = 0; i < items.size(); ++i) {
    direct::PyObject* item = items[i];
    void* data = nullptr;
    if (!direct::is_plain(env, item)) return -1;
    if (aoti_torch_get_data_ptr(direct::handle_of(env, item), &data) != AOTI_TORCH_SUCCESS) return -1;
    if (data != reinterpret_cast<void*>(address + uintptr_t(i * size))) return 0;
  }
  return 1;
}
