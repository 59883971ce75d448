// Operations over lists of tensors on the GPU: one launch for any list of up to 4096 tensors.
#pragma once

#include "core/bytes.h"
#include "core/lists.h"
#include "cuda/driver.h"

namespace momentum::cuda {

template <class Op>
cudaError_t run_list(const lists::Call<Op>& call, const Context& context);

// Sets all bytes to zero.
cudaError_t clear_list(const std::vector<Bytes>& tensors, const Context& context);

}  // namespace momentum::cuda
