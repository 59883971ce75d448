// momentum::simt, as the emulator provides it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "scheduler.h"

namespace momentum::emulator {

inline constexpr std::size_t max_parameter_bytes = 32764;
inline constexpr std::size_t default_dynamic_shared_bytes = 48 * 1024;
inline constexpr std::size_t max_dynamic_shared_bytes = 227 * 1024;  // once cudaFuncSetAttribute has allowed them

struct Launch {
  const void* kernel;
  dim3 grid;
  dim3 block;
  std::size_t dynamic_shared_bytes;
  std::size_t parameter_bytes;
  void (*run_thread)(const void* arguments);
  const void* arguments;
};

// Runs every block to completion on the calling CPU thread; launches of different CPU threads take turns.
cudaError_t run(const Launch& launch);

void allow_dynamic_shared_bytes(const void* kernel, std::size_t bytes);

// Makes an error what cudaGetLastError returns next, and returns it.
cudaError_t remember(cudaError_t error);

// The kernel of the launch that runs, null outside of one.
const void* running_kernel();

// Where the last parameter ends when each is aligned as its type, or the type a reference refers to, asks.
template <class... P>
constexpr std::size_t parameter_bytes() {
  std::size_t end = 0;
  ((end = (end + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
  return end;
}

}  // namespace momentum::emulator

namespace momentum::simt {

template <class... P>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t,
                   const std::type_identity_t<std::remove_reference_t<P>>&... arguments) {
  constexpr std::size_t bytes = emulator::parameter_bytes<P...>();
  static_assert(bytes <= emulator::max_parameter_bytes, "the parameters of a kernel may take 32764 bytes");
  struct Call {
    void (*kernel)(P...);
    std::tuple<const std::remove_reference_t<P>&...> arguments;
  } call{kernel, {arguments...}};
  const auto run_thread = [](const void* erased) {
    const auto& [function, values] = *static_cast<const Call*>(erased);
    [&]<std::size_t... I>(std::index_sequence<I...>) { function(std::get<I>(values)...); }(std::index_sequence_for<P...>{});
  };
  return emulator::remember(
      emulator::run({reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, bytes, run_thread, &call}));
}

template <class T>
T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
  return reinterpret_cast<T*>(emulator::block.dynamic_shared);
}

}  // namespace momentum::simt

// The overload for kernels, which the runtime's header keeps for nvcc.
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
