// Operations over lists of tensors on the CPU.
#pragma once

#include "core/bytes.h"
#include "core/lists.h"
#include "cpu/driver.h"

namespace momentum::cpu {

// One parallel region for the whole list.
template <class Op>
void run_list(const lists::Call<Op>& call, ParallelFor parallel_for);

// Sets all bytes of all tensors to zero.
void clear_list(const std::vector<Bytes>& tensors, ParallelFor parallel_for);

// Elements [begin, end) of tensor `index`, for each instruction set.
namespace baseline {
template <class Op>
void list_range(const lists::Call<Op>& call, int64_t index, int64_t begin, int64_t end);
}
#if defined(__x86_64__)
namespace avx2 {
template <class Op>
void list_range(const lists::Call<Op>& call, int64_t index, int64_t begin, int64_t end);
}
namespace avx512 {
template <class Op>
void list_range(const lists::Call<Op>& call, int64_t index, int64_t begin, int64_t end);
}
#endif

}  // namespace momentum::cpu
