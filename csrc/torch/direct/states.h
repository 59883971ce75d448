// What the state dictionaries of an optimizer hold, in lists.
#pragma once

#include <cstddef>
#include <cstdint>

#include "torch/direct/objects.h"

namespace momentum::ops::direct {

// Where the elements of a contiguous tensor lie.
struct Elements {
  uintptr_t address;
  ptrdiff_t size;
};

// See momentum_direct_states; a new reference. Throws Declined where something is missing or unusual.
PyObject* read_states(const Environment& env, PyObject* dicts, PyObject* keys, PyObject* defaults, const Elements& elements);

}  // namespace momentum::ops::direct
