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

// Takes what the process's torch looks like from Python. Returns whether direct calls are possible.
MOMENTUM_EXPORT int momentum_direct_open(direct::PyObject* tensor_type, direct::PyObject* parameter_type,
                                         direct::PyObject* none, direct::PyObject* capsule) {
  const direct::Python* python = direct::Python::get();
  if (python == nullptr) return 0;
  const void* found = python->capsule_pointer(capsule, direct::kExchangeCapsule);
  if (found == nullptr) python->clear_error();
  const auto* exchange = static_cast<const direct::ExchangeInterface*>(found);
  while (exchange != nullptr && exchange->major != direct::kExchangeMajor) exchange = exchange->previous;
  if (exchange == nullptr || exchange->view == nullptr) return 0;
  direct::environment = {python, exchange, tensor_type, parameter_type, none};
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
