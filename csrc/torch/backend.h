// What differs between the shared objects built from the sources of this folder.
//
// _C registers schemas and CPU kernels; _C_cuda adds the CUDA kernels of the same ops; _C_emulated (tests only) registers a
// second namespace whose ops take CPU tensors and run the CUDA kernels under the emulator.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "core/conversion.h"

namespace momentum::ops::backend {

#if defined(MOMENTUM_BACKEND_CUDA)
inline constexpr const char* kNamespace = "momentum";
inline constexpr const char* kDispatchKey = "CUDA";
inline constexpr bool kDefinesSchemas = false;
inline constexpr bool kOnCpu = false;
#elif defined(MOMENTUM_BACKEND_EMULATED)
inline constexpr const char* kNamespace = "momentum_emulated";
inline constexpr const char* kDispatchKey = "CPU";
inline constexpr bool kDefinesSchemas = true;
inline constexpr bool kOnCpu = true;
#else
inline constexpr const char* kNamespace = "momentum";
inline constexpr const char* kDispatchKey = "CPU";
inline constexpr bool kDefinesSchemas = true;
inline constexpr bool kOnCpu = true;
#endif

// Runs a checked call on the device of its tensors. Defined in cpu/run.h and device/run.h.
template <class Rule>
void run(const char* op, const StepCall& call, int32_t device_index);

void run_conversion(const char* op, const Conversion& conversion, int32_t device_index);

// Words of Philox for elements offset .. offset + count.
void run_philox(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count, int32_t device_index);

}  // namespace momentum::ops::backend

#if defined(MOMENTUM_BACKEND_CUDA) || defined(MOMENTUM_BACKEND_EMULATED)
#include "torch/device/run.h"
#else
#include "torch/cpu/run.h"
#endif
