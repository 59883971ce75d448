// What the state dictionaries of an optimizer hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "torch/direct/objects.h"

namespace momentum::ops::direct {

// Where the elements of a contiguous tensor lie.
struct Elements {
  uintptr_t address;
  ptrdiff_t size;
};

// What is read of each dictionary. The first key is that of the step counts: tensors that must lie one after the other, as the
// elements do.
struct StateKeys {
  std::vector<PyObject*> names;     // strings
  std::vector<PyObject*> defaults;  // taken where a dictionary lacks a name; None where it may not
  Elements steps;
};

class States {
 public:
  // Reads all dictionaries; objects are borrowed. Throws Declined where something is missing.
  States(const Environment& env, const std::vector<PyObject*>& dicts, const StateKeys& keys);

  // Of each name but the first what the dictionaries have under it.
  const std::vector<std::vector<PyObject*>>& columns() const { return columns_; }

  // Looks at the step counts of dictionaries [begin, end); of the interpreter it uses nothing. Throws Declined where they lie
  // elsewhere or are no plain tensors.
  void check_steps(int64_t begin, int64_t end) const;

 private:
  const Environment& env_;
  Elements elements_;
  std::vector<PyObject*> steps_;
  std::vector<std::vector<PyObject*>> columns_;
};

// The columns as a list of lists; a new reference.
PyObject* list_of(const Environment& env, const States& states);

}  // namespace momentum::ops::direct
