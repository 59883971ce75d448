// Instructions that CUDA C++ has no name for or takes apart: vector stores, asynchronous copies into shared memory and the
// tensor cores.
//
// All need sm_80. Fragments have the layouts of the PTX manual for mma.m16n8k16 with a row-major A and a column-major B;
// with group = lane / 4 and pair = 2 * (lane % 4), a lane holds
//   A (16 x 16)  a[0]: row group,     columns pair, pair + 1        a[2]: the same row, columns pair + 8, pair + 9
//                a[1]: row group + 8, columns pair, pair + 1        a[3]: the same row, columns pair + 8, pair + 9
//   B (16 x 8)   b[0]: rows pair, pair + 1 of column group          b[1]: rows pair + 8, pair + 9 of column group
//   D (16 x 8)   d[0], d[1]: row group, columns pair, pair + 1      d[2], d[3]: row group + 8, the same columns
#pragma once

#include <cstdint>

#include "simt.h"

#if defined(MOMENTUM_EMULATE)

#include "../../tests/emulator/ptx.h"

#else

namespace momentum::ptx {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Says that a pointer points to global memory, which the compiler cannot see once it has passed through a table in memory, and
// which spares each access the look-up of its address space.
__device__ __forceinline__ void assume_global(const void* pointer) { __builtin_assume(__isGlobal(pointer)); }

// One store to global memory, aligned to its size. Beside a branch that stores the same elements one by one, the compiler would
// merge an ordinary vector store into it.
__device__ __forceinline__ void store_vector(void* address, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}
__device__ __forceinline__ void store_vector(void* address, uint2 value) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(value.x), "r"(value.y) : "memory");
}

// Reads a number that other blocks may be changing by atomic operations.
__device__ __forceinline__ uint32_t load_relaxed(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}

// Starts copying kBytes (4, 8 or 16, both addresses aligned to as many) from global to shared memory; zeros, without
// reading the source, unless `valid`. The data may be used by this thread after a wait for its group, and by the
// others after a barrier beyond that.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const int source_bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(shared_address(shared)), "l"(global), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
  }
}

// Closes this thread's current group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most kInFlight of this thread's committed groups are unfinished.
template <int kInFlight>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kInFlight) : "memory");
}

// Loads kMatrices (1, 2 or 4) 8 x 8 matrices of 16-bit elements from shared memory: lane l points at row l % 8 of matrix
// l / 8, aligned to 16 bytes, and receives in fragment[m] the elements pair and pair + 1 of row group of matrix m; with
// kTransposed, those of column group.
template <bool kTransposed, int kMatrices>
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[kMatrices], const void* row) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  const unsigned address = shared_address(row);
  if constexpr (kMatrices == 4 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n" : "=r"(fragment[0]) : "r"(address) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n" : "=r"(fragment[0]) : "r"(address) : "memory");
  }
}

// d += a b, in fp32, of bf16 fragments.
__device__ __forceinline__ void multiply_add_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of fp16 fragments.
__device__ __forceinline__ void multiply_add_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace momentum::ptx

#endif
