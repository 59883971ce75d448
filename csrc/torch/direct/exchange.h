// DLPack's C exchange interface (DLPack 1.2 and later): a table of functions that torch hangs on its tensor type, so that
// other libraries can read a tensor without a copy, an allocation or the dispatcher. Declared here from its specification.
#pragma once

#include <cstdint>

#include "torch/direct/python.h"

namespace momentum::ops::direct {

struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct ExchangeInterface {
  uint32_t major, minor;
  const ExchangeInterface* previous;
  void* allocate;
  void* managed_from_python;
  void* managed_to_python;
  int (*view)(PyObject*, DLTensor*);  // may be null; -1 and a Python error where the object cannot be described
  void* current_stream;
};

inline constexpr const char* kExchangeCapsule = "dlpack_exchange_api";
inline constexpr uint32_t kExchangeMajor = 1;

}  // namespace momentum::ops::direct
