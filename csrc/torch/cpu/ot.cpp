#include <torch/csrc/stable/library.h>

#include "cpu/ot/solve.h"
#include "torch/ot/backend.h"

namespace momentum::ops::backend {

void solve_transport(const char*, const ot::Batch& batch, int32_t) {
  cpu::ot::solve(batch, [](int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context) {
    TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
  });
}

}  // namespace momentum::ops::backend
