// The part of Python's stable C interface that the direct entry needs, looked up in the process: the shared object is linked
// against no Python, so that one wheel serves all versions and a process without Python can load it as well.
#pragma once

#include <cstddef>

namespace momentum::ops::direct {

struct PyObject;  // opaque

struct Python {
  PyObject* (*tuple_item)(PyObject*, ptrdiff_t);  // borrowed
  ptrdiff_t (*tuple_size)(PyObject*);
  PyObject* (*list_item)(PyObject*, ptrdiff_t);      // borrowed
  ptrdiff_t (*list_size)(PyObject*);                 // -1 and an error for anything that is no list
  PyObject* (*new_list)(ptrdiff_t size);             // new; filled by set_item
  int (*set_item)(PyObject*, ptrdiff_t, PyObject*);  // steals the item
  PyObject* (*dict_item)(PyObject*, PyObject* key);  // borrowed; null without an error where there is none
  void (*acquire)(PyObject*);
  ptrdiff_t (*dict_size)(PyObject*);  // -1 and an error for anything that is no dictionary
  int (*dict_next)(PyObject*, ptrdiff_t* place, PyObject** key, PyObject** value);  // borrowed
  double (*as_double)(PyObject*);
  long long (*as_integer)(PyObject*);
  int (*is_true)(PyObject*);
  PyObject* (*attribute)(PyObject*, const char*);  // new
  PyObject* (*call)(PyObject*, PyObject*);         // new
  PyObject* (*call_with)(PyObject*, ...);          // new; the arguments, then null
  void (*release)(PyObject*);
  PyObject* (*error)();  // borrowed; null where there is none
  void (*clear_error)();
  void (*raise)(PyObject* type, const char* message);
  PyObject** runtime_error;
  void* (*release_interpreter)();
  void (*take_interpreter)(void*);

  // Null where this process has no Python.
  static const Python* get();
};

}  // namespace momentum::ops::direct
