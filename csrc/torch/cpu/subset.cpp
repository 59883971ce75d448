#include "cpu/subset.h"

#include <torch/csrc/stable/library.h>

#include "torch/subset_backend.h"

namespace momentum::ops::backend {

template <class Rule>
void run_subset(const char*, const SubsetCall& call, int32_t) {
  cpu::run_subset(cpu::subset_kernels<Rule>(), call,
                  [](int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context) {
                    TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
                  });
}

template void run_subset<rules::Adam>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Lion>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Sgd>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Spam>(const char*, const SubsetCall&, int32_t);

}  // namespace momentum::ops::backend
