#include "torch/direct/states.h"

#include <utility>
#include <vector>

namespace momentum::ops::direct {
namespace {

// A new list, released unless it is handed out.
class NewList {
 public:
  NewList(const Python& python, size_t size) : python_(python), list_(python.new_list(ptrdiff_t(size))) {
    if (list_ == nullptr) throw Declined{};
  }
  NewList(NewList&& other) noexcept : python_(other.python_), list_(other.hand_out()) {}
  NewList& operator=(NewList&&) = delete;
  ~NewList() {
    if (list_ != nullptr) python_.release(list_);
  }

  // `item`: a new reference.
  void set(size_t i, PyObject* item) { python_.set_item(list_, ptrdiff_t(i), item); }
  PyObject* hand_out() { return std::exchange(list_, nullptr); }

 private:
  const Python& python_;
  PyObject* list_;
};

PyObject* value_of(const Environment& env, PyObject* dict, PyObject* key, PyObject* otherwise) {
  PyObject* value = env.python->dict_item(dict, key);
  if (value == nullptr && otherwise != env.none && env.python->error() == nullptr) value = otherwise;
  if (value == nullptr) throw Declined{};
  return value;
}

void check_elements(const Environment& env, const std::vector<PyObject*>& tensors, const Elements& elements) {
  const Walk walk(env, tensors.data(), ptrdiff_t(tensors.size()));
  for (ptrdiff_t i = 0; i < walk.size(); ++i) {
    PyObject* tensor = walk[i];
    if (!is_plain(env, tensor)) throw Declined{};
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle_of(env, tensor), &data));
    if (data != reinterpret_cast<void*>(elements.address + uintptr_t(i * elements.size))) throw Declined{};
  }
}

}  // namespace

PyObject* read_states(const Environment& env, PyObject* dicts, PyObject* keys, PyObject* defaults, const Elements& elements) {
  const Python& python = *env.python;
  const std::vector<PyObject*> rows = items_of(env, dicts), names = items_of(env, keys), others = items_of(env, defaults);
  std::vector<PyObject*> steps(rows.size());
  std::vector<NewList> columns;
  for (size_t k = 1; k < names.size(); ++k) columns.emplace_back(python, rows.size());
  const Walk walk(env, rows.data(), ptrdiff_t(rows.size()));
  for (size_t i = 0; i < rows.size(); ++i) {
    PyObject* dict = walk[ptrdiff_t(i)];
    steps[i] = value_of(env, dict, names[0], others[0]);
    for (size_t k = 1; k < names.size(); ++k) {
      PyObject* value = value_of(env, dict, names[k], others[k]);
      python.acquire(value);
      columns[k - 1].set(i, value);
    }
  }
  check_elements(env, steps, elements);
  NewList states(python, columns.size());
  for (size_t k = 0; k < columns.size(); ++k) states.set(k, columns[k].hand_out());
  return states.hand_out();
}

}  // namespace momentum::ops::direct
