#include "torch/direct/python.h"

#include <dlfcn.h>

namespace momentum::ops::direct {
namespace {

template <class Pointer>
bool find(Pointer& pointer, const char* name) {
  pointer = reinterpret_cast<Pointer>(dlsym(RTLD_DEFAULT, name));
  return pointer != nullptr;
}

bool find_all(Python& p) {
  return find(p.tuple_item, "PyTuple_GetItem") && find(p.tuple_size, "PyTuple_Size") && find(p.list_item, "PyList_GetItem") &&
         find(p.list_size, "PyList_Size") && find(p.new_list, "PyList_New") && find(p.set_item, "PyList_SetItem") &&
         find(p.dict_item, "PyDict_GetItemWithError") && find(p.acquire, "Py_IncRef") && find(p.dict_size, "PyDict_Size") &&
         find(p.dict_next, "PyDict_Next") && find(p.as_double, "PyFloat_AsDouble") && find(p.as_integer, "PyLong_AsLongLong") &&
         find(p.is_true, "PyObject_IsTrue") && find(p.attribute, "PyObject_GetAttrString") &&
         find(p.call, "PyObject_CallObject") && find(p.call_with, "PyObject_CallFunctionObjArgs") &&
         find(p.release, "Py_DecRef") && find(p.error, "PyErr_Occurred") && find(p.clear_error, "PyErr_Clear") &&
         find(p.raise, "PyErr_SetString") && find(p.runtime_error, "PyExc_RuntimeError") &&
         find(p.release_interpreter, "PyEval_SaveThread") && find(p.take_interpreter, "PyEval_RestoreThread");
}

}  // namespace

const Python* Python::get() {
  static Python python;
  static const bool found = find_all(python);
  return found ? &python : nullptr;
}

}  // namespace momentum::ops::direct
