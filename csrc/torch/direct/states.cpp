#include "torch/direct/states.h"

#include <algorithm>
#include <utility>

namespace momentum::ops::direct {
namespace {

// A new list, released unless it is handed out.
class NewList {
 public:
  NewList(const Python& python, size_t size) : python_(python), list_(python.new_list(ptrdiff_t(size))) {
    if (list_ == nullptr) throw Declined{};
  }
  NewList(const NewList&) = delete;
  NewList& operator=(const NewList&) = delete;
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

// Reads dictionaries that mostly have the same keys, as the same objects in the same order: going through one takes a fraction
// of looking up each name.
class Reader {
 public:
  Reader(const Environment& env, const StateKeys& keys) : env_(env), keys_(keys), found_(keys.names.size()) {}

  // Of each name what the dictionary has under it.
  const std::vector<PyObject*>& operator()(PyObject* dict) {
    if (!follow(dict)) look_up(dict);
    return found_;
  }

 private:
  // False where the dictionary differs from the one last looked up.
  bool follow(PyObject* dict) {
    if (order_.empty()) return false;
    ptrdiff_t place = 0;
    PyObject *key = nullptr, *value = nullptr;
    for (const auto& [expected, k] : order_) {
      if (env_.python->dict_next(dict, &place, &key, &value) == 0 || key != expected) return false;
      if (k >= 0) found_[size_t(k)] = value;
    }
    return env_.python->dict_next(dict, &place, &key, &value) == 0;
  }

  void look_up(PyObject* dict) {
    const size_t count = keys_.names.size();
    size_t present = 0;
    for (size_t k = 0; k < count; ++k) {
      PyObject* value = env_.python->dict_item(dict, keys_.names[k]);
      if (value == nullptr && env_.python->error() != nullptr) throw Declined{};
      present += value != nullptr ? 1 : 0;
      found_[k] = value != nullptr ? value : keys_.defaults[k];
      if (found_[k] == env_.none) throw Declined{};
    }
    order_.clear();
    size_t recognised = 0;
    ptrdiff_t place = 0;
    PyObject *key = nullptr, *value = nullptr;
    while (env_.python->dict_next(dict, &place, &key, &value) != 0) {
      const auto name = std::find(keys_.names.begin(), keys_.names.end(), key);
      const bool is_name = name != keys_.names.end();
      recognised += is_name ? 1 : 0;
      order_.emplace_back(key, is_name ? name - keys_.names.begin() : -1);
    }
    if (recognised != present) order_.clear();  // a name is there as another object
  }

  const Environment& env_;
  const StateKeys& keys_;
  std::vector<std::pair<PyObject*, ptrdiff_t>> order_;  // keys and which names they are, if any
  std::vector<PyObject*> found_;                        // of each name
};

}  // namespace

States::States(const Environment& env, const std::vector<PyObject*>& dicts, const StateKeys& keys)
    : env_(env), elements_(keys.steps), steps_(dicts.size()) {
  const size_t count = keys.names.size();
  columns_.assign(count - 1, std::vector<PyObject*>(dicts.size()));
  Reader read(env, keys);
  const Walk walk(env, dicts.data(), ptrdiff_t(dicts.size()));
  for (size_t i = 0; i < dicts.size(); ++i) {
    const std::vector<PyObject*>& values = read(walk[ptrdiff_t(i)]);
    steps_[i] = values[0];
    for (size_t k = 1; k < count; ++k) columns_[k - 1][i] = values[k];
  }
}

void States::check_steps(int64_t begin, int64_t end) const {
  const Walk walk(env_, steps_.data() + begin, end - begin);
  for (int64_t i = begin; i < end; ++i) {
    PyObject* tensor = walk[i - begin];
    if (!is_plain(env_, tensor)) throw Declined{};
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle_of(env_, tensor), &data));
    if (data != reinterpret_cast<void*>(elements_.address + uintptr_t(i * elements_.size))) throw Declined{};
  }
}

PyObject* list_of(const Environment& env, const States& states) {
  const Python& python = *env.python;
  NewList lists(python, states.columns().size());
  for (size_t k = 0; k < states.columns().size(); ++k) {
    const std::vector<PyObject*>& column = states.columns()[k];
    NewList list(python, column.size());
    for (size_t i = 0; i < column.size(); ++i) {
      python.acquire(column[i]);
      list.set(i, column[i]);
    }
    lists.set(k, list.hand_out());
  }
  return lists.hand_out();
}

}  // namespace momentum::ops::direct
