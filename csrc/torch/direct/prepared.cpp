#include "torch/direct/prepared.h"

#include <deque>
#include <exception>
#include <functional>
#include <optional>

#include "torch/direct/gradients.h"

namespace momentum::ops::direct {
namespace {

// References to objects that must outlive the time in which other threads have the interpreter.
class Kept {
 public:
  explicit Kept(const Python& python) : python_(python) {}
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  // `objects` must outlive this.
  void add(const std::vector<PyObject*>& objects) {
    for (PyObject* object : objects) python_.acquire(object);
    lists_.push_back(&objects);
  }
  ~Kept() {
    constexpr size_t kAhead = 16;
    for (const std::vector<PyObject*>* list : lists_) {
      const std::vector<PyObject*>& objects = *list;
      for (size_t i = 0; i < objects.size(); ++i) {
        if (i + kAhead < objects.size()) fetch(objects[i + kAhead], 1);
        python_.release(objects[i]);
      }
    }
  }

 private:
  const Python& python_;
  TensorLists lists_;
};

}  // namespace

bool same_items(const Python& python, PyObject* list, PyObject* other) {
  const ptrdiff_t count = python.list_size(list);
  if (count != python.list_size(other)) return false;
  for (ptrdiff_t i = 0; i < count; ++i) {
    if (python.list_item(list, i) != python.list_item(other, i)) return false;
  }
  return true;
}

bool same_entries(const Python& python, PyObject* dict, PyObject* keys, PyObject* values) {
  if (python.dict_size(dict) != python.list_size(keys)) return false;
  ptrdiff_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  for (ptrdiff_t i = 0; python.dict_next(dict, &place, &key, &value) != 0; ++i) {
    if (key != python.list_item(keys, i) || value != python.list_item(values, i)) return false;
  }
  return true;
}

namespace {

bool is_unchanged(const Environment& env, const Optimizer& optimizer) {
  const Python& python = *env.python;
  const auto item = [&](PyObject* tuple, ptrdiff_t i) { return python.tuple_item(tuple, i); };
  PyObject* const states = item(optimizer.expected, 0);
  if (states != env.none && !same_entries(python, optimizer.state, item(states, 0), item(states, 1))) return false;
  const ptrdiff_t count = python.list_size(optimizer.groups);
  if (count != python.tuple_size(optimizer.expected) - 1) return false;
  for (ptrdiff_t i = 0; i < count; ++i) {
    PyObject* const group = item(optimizer.expected, i + 1);
    if (!same_entries(python, python.list_item(optimizer.groups, i), item(group, 0), item(group, 1))) return false;
    if (python.tuple_size(group) > 2 && !same_items(python, item(group, 2), item(group, 3))) return false;
  }
  return true;
}

}  // namespace

bool Prepared::is_possible(const Environment& env) { return Gradients::are_known(env) && env.torch.bump_version != nullptr; }

namespace {

// A call whose tensors were found and checked.
struct Found {
  Found(const Environment& env, const PreparedCall& call, PyObject* arguments)
      : states(env, call.dicts, call.state_keys),
        gradients(env, call.params),
        work(checked_call(env, *call.op, arguments, {&gradients, &states, call.lists})) {}

  States states;
  Gradients gradients;
  std::optional<std::function<void()>> work;
};

}  // namespace

Outcome Prepared::run(const Optimizer& optimizer, PyObject* arguments) const {
  const Python& python = *env_.python;
  if (!is_possible(env_)) return kDeclined;
  try {
    if (!is_unchanged(env_, optimizer) || !Gradients::are_missing(env_, idle_)) {
      python.clear_error();
      return kChanged;
    }
    std::deque<Found> found;  // which stay where they are
    for (size_t i = 0; i < calls_.size(); ++i) {
      const Found& call = found.emplace_back(env_, calls_[i], python.tuple_item(arguments, ptrdiff_t(i)));
      if (!call.work) return kDeclined;
    }
    Kept kept(python);  // the others are kept by whoever prepared the step
    TensorLists written;
    for (size_t i = 0; i < calls_.size(); ++i) {
      found[i].gradients.hold();
      for (const std::vector<PyObject*>& column : found[i].states.columns()) {
        kept.add(column);
        written.push_back(&column);
      }
      written.push_back(&calls_[i].params);
      written.push_back(&calls_[i].steps);
    }
    if (!bump_versions(env_, written)) return kDeclined;
    return run_released(env_, [&] {
      for (const Found& call : found) (*call.work)();
      for (Found& call : found) call.gradients.drop();
    });
  } catch (const Declined&) {
  } catch (const std::exception&) {
  }
  python.clear_error();
  return kDeclined;
}

}  // namespace momentum::ops::direct
