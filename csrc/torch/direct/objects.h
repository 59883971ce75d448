// Python's tensor objects, seen from C: what kind they are, the tensor in them, and how to have many of them in the caches in
// time.
#pragma once

#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <vector>

#include "torch/direct/python.h"
#include "torch/direct/torch_functions.h"

namespace momentum::ops::direct {

// Thrown where an argument is anything but a plain tensor, list or number: the dispatcher then takes the call.
struct Declined {};

// What the process's torch and Python look like from C.
struct Environment {
  const Python* python = nullptr;
  PyObject *tensor_type = nullptr, *parameter_type = nullptr, *dict_type = nullptr, *none = nullptr;
  PyObject* increment_version = nullptr;  // the function of torch.autograd.graph
  // Where an object keeps its type, a tensor's object the pointer to the tensor, and a tensor the one to its object, if it has
  // one: found out by _native.py, because no interface of torch tells a tensor without going through the dispatcher or making
  // another object of it.
  ptrdiff_t type_place = 0, tensor_place = 0, object_place = 0;
  TorchFunctions torch;
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

// The tensor itself, as torch's functions know it.
inline const void* implementation_of(const void* handle) { return word_at(handle, 0); }

// The object of a tensor; null where Python has not seen it yet.
inline PyObject* object_of(const Environment& env, const void* implementation) {
  constexpr uintptr_t kFlags = 7;  // torch marks in the low bits who owns whom
  return reinterpret_cast<PyObject*>(reinterpret_cast<uintptr_t>(word_at(implementation, env.object_place)) & ~kFlags);
}

// Whether the stored numbers of a plain tensor are the negatives of those meant.
bool is_negated(const Environment& env, PyObject* object);

// The items of a list, borrowed. Throws Declined where it is none.
std::vector<PyObject*> items_of(const Environment& env, PyObject* list);

// Hints, for any address.
inline void fetch(const void* memory, ptrdiff_t lines) {
  for (ptrdiff_t i = 0; i < lines; ++i) __builtin_prefetch(static_cast<const char*>(memory) + 64 * i);
}
inline constexpr ptrdiff_t kTensorLines = 3;
// What a tensor points to; the tensor itself is read.
void fetch_parts_of_tensor(const void* implementation);

// Walks over objects whose parts are scattered over the heap. Reading one means to wait for three or four lines in a row; of
// many, they can be asked for at once.
class Walk {
 public:
  Walk(const Environment& env, PyObject* const* items, ptrdiff_t count) : env_(env), items_(items), size_(count) {}

  ptrdiff_t size() const { return size_; }
  // Item i. Those after it are on their way when it returns.
  PyObject* operator[](ptrdiff_t i) const {
    if (i + 2 * kAhead < size_) fetch(items_[i + 2 * kAhead], 1);
    if (i + kAhead < size_) fetch_parts(items_[i + kAhead]);
    if (i + kAhead / 2 < size_ && is_plain(env_, items_[i + kAhead / 2])) {
      fetch_parts_of_tensor(implementation_of(handle_of(env_, items_[i + kAhead / 2])));
    }
    return items_[i];
  }

 private:
  static constexpr ptrdiff_t kAhead = 8;

  void fetch_parts(const PyObject* object) const;

  const Environment& env_;
  PyObject* const* items_;
  ptrdiff_t size_;
};

}  // namespace momentum::ops::direct
