// Function attributes shared by host and device code.
#pragma once

// Always inlined on the host: the CPU kernels are compiled once per instruction set, and an out-of-line copy of a shared
// function could be merged by the linker into one built for the wrong processor.
#if defined(__CUDACC__)
#define MOMENTUM_HD __host__ __device__ __forceinline__
#else
#define MOMENTUM_HD inline __attribute__((always_inline))
#endif

// Unrolls the loop that follows, in the spelling of the compiler at hand.
#if defined(__CUDACC__)
#define MOMENTUM_UNROLL _Pragma("unroll")
#else
#define MOMENTUM_UNROLL _Pragma("GCC unroll 16")
#endif
