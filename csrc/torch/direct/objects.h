// Python's tensor objects, seen from C: what kind they are, the tensor in them, and how to have many of them in the caches in
// time.
#pragma once

#include <torch/csrc/stable/library.h>

#include <vector>

#include "torch/direct/python.h"

namespace momentum::ops::direct {

// What the process's torch and Python look like from C.
struct Environment {
  const Python* python = nullptr;
  PyObject *tensor_type = nullptr, *parameter_type = nullptr, *dict_type = nullptr, *none = nullptr;
  // Where an object keeps its type, and a tensor's object the pointer to the tensor: found out by _native.py, because no
  // interface of torch tells a tensor without going through the dispatcher or making another object of it.
  ptrdiff_t type_place = 0, tensor_place = 0;
};

inline void* word_at(const void* memory, ptrdiff_t place) {
  return *reinterpret_cast<void* const*>(static_cast<const char*>(memory) + place);
}

// A tensor that the dispatcher would do nothing special about: no subclass.
inline bool is_plain(const Environment& env, const PyObject* object) {
  const void* type = word_at(object, env.type_place);
  return type == env.tensor_type || type == env.parameter_type;
}

// A handle is the address of a pointer to a tensor, which is what the object of a plain tensor holds.
inline AtenTensorHandle handle_of(const Environment& env, PyObject* object) {
  return reinterpret_cast<AtenTensorHandle>(reinterpret_cast<char*>(object) + env.tensor_place);
}

// Walks over lists of objects whose parts are scattered over the heap. Reading one means to wait for three or four lines in a
// row; of many, they can be asked for at once.
class Walk {
 public:
  Walk(const Environment& env, PyObject* list, ptrdiff_t count);

  ptrdiff_t size() const { return ptrdiff_t(items_.size()); }
  // Item i. Those after it are on their way when it returns.
  PyObject* operator[](ptrdiff_t i) const {
    if (i + 2 * kAhead < size()) fetch(items_[size_t(i + 2 * kAhead)], 0, 1);
    if (i + kAhead < size()) fetch_parts(items_[size_t(i + kAhead)]);
    if (i + kAhead / 2 < size()) fetch_parts_of_tensor(items_[size_t(i + kAhead / 2)]);
    return items_[size_t(i)];
  }

 private:
  static constexpr ptrdiff_t kAhead = 8;

  // A hint, for any address.
  static void fetch(const void* memory, ptrdiff_t first, ptrdiff_t lines) {
    for (ptrdiff_t i = first; i < first + lines; ++i) __builtin_prefetch(static_cast<const char*>(memory) + 64 * i);
  }
  void fetch_parts(const PyObject* object) const;
  void fetch_parts_of_tensor(const PyObject* object) const;

  const Environment& env_;
  std::vector<PyObject*> items_;
};

}  // namespace momentum::ops::direct
