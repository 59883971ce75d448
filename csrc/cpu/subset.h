// Steps on a subset of the elements, on the CPU.
#pragma once

#include "core/subset.h"
#include "cpu/driver.h"

namespace momentum::cpu {

// One tensor of a call, as a kernel sees it.
struct SubsetTask {
  const SubsetCall* call;
  const SubsetTensor* tensor;
  const ConstantsStorage* constants;
  int64_t index;
};

struct SubsetKernels {
  void (*constants)(const CommonArgs&, ConstantsStorage*);
  void (*map)(const SubsetTask&, int64_t begin, int64_t end);  // tiles [begin, end)
};

// Defined for Spam, Adam, Lion and Sgd.
namespace baseline {
template <class Rule>
const SubsetKernels& subset_kernels();
}
#if defined(__x86_64__)
namespace avx2 {
template <class Rule>
const SubsetKernels& subset_kernels();
}
namespace avx512 {
template <class Rule>
const SubsetKernels& subset_kernels();
}
#endif

// The kernels of a rule for the processor at hand.
template <class Rule>
const SubsetKernels& subset_kernels();

void run_subset(const SubsetKernels& kernels, const SubsetCall& call, ParallelFor parallel_for);

}  // namespace momentum::cpu
