// The rules this module knows, each described once by the translation unit generated from rule.cpp.in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "array/parallel.h"
#include "core/call.h"
#include "core/reductions.h"
#include "cpu/dispatch.h"
#if defined(MOMENTUM_HAVE_CUDA)
#include "cuda/driver.h"
#endif

namespace momentum::array {

struct Rule {
  const char* name;
  std::span<const StateInfo> states;
  std::span<const HyperInfo> hypers;
  int scalars;                                                                   // persistent ones per tensor
  bool matrices_only;                                                            // see kMatrices
  int64_t (*totals)(const TensorArgsVector& tensors, const CommonArgs& common);  // doubles the reductions need
  void (*run_on_cpu)(const StepCall& call);
#if defined(MOMENTUM_HAVE_CUDA)
  cudaError_t (*run_on_cuda)(const StepCall& call, const cuda::Context& context);
#endif
};

std::vector<Rule>& rules();

template <class R>
void run_on_cpu(const StepCall& call) {
  cpu::run_step(cpu::kernels<R>(), call, parallel_for);
}

// Returns a value so that it can initialise a namespace-scope constant.
template <class R>
bool add_rule() {
  Rule rule{};
  rule.name = R::kName;
  rule.states = R::kStates;
  rule.hypers = R::kHypers;
  rule.scalars = scalar_count<R>();
  rule.matrices_only = matrices_only<R>();
  rule.totals = total_count<R>;
  rule.run_on_cpu = run_on_cpu<R>;
#if defined(MOMENTUM_HAVE_CUDA)
  rule.run_on_cuda = cuda::run_step<R>;
#endif
  rules().push_back(rule);
  return true;
}

}  // namespace momentum::array
