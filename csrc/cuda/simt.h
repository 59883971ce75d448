// The one header a kernel includes: it alone knows which compiler reads the file.
//
// Under nvcc this is the CUDA runtime and two helpers. Under a host compiler with MOMENTUM_EMULATE defined, the same
// names come from the emulator in tests/emulator, which runs the kernel on the CPU. Kernels stay plain CUDA; only
// what the language cannot say in both worlds, a launch and dynamic shared memory, goes through momentum::simt. One
// habit is needed: __grid_constant__ stands after the type (`const Table __grid_constant__ table`).
#pragma once

#if defined(MOMENTUM_EMULATE)

#include "../../tests/emulator/emulator.h"

#else

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

namespace momentum::simt {

// Launches kernel<<<grid, block, shared_bytes, stream>>>(arguments...) and returns what the runtime said of the launch.
// The arguments are handed over by address, so a 32 KB table is copied once, by the runtime.
template <class... P>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   const std::type_identity_t<P>&... arguments) {
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = grid;
  configuration.blockDim = block;
  configuration.dynamicSmemBytes = shared_bytes;
  configuration.stream = stream;
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
  return cudaLaunchKernelExC(&configuration, reinterpret_cast<const void*>(kernel), addresses);
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
  extern __shared__ __align__(16) unsigned char momentum_dynamic_shared[];
  return reinterpret_cast<T*>(momentum_dynamic_shared);
}

}  // namespace momentum::simt

#endif
