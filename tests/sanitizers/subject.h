// A rule as the sanitizer programs see it: what it wants, and its two drivers.
#pragma once

#include <vector>

#include "core/call.h"
#include "core/reductions.h"
#include "cpu/dispatch.h"
#include "cpu/driver.h"
#include "cuda/driver.h"

namespace momentum::sanitizers {

struct Subject {
  const char* name;
  int state_count;
  int required_state_count;
  const HyperInfo* hypers;
  int hyper_count;
  int scalar_count;
  int reduction_count;
  bool selects;
  bool has_map;
  bool matrices_only;
  int64_t (*total_count)(const TensorArgsVector& tensors, const CommonArgs& common);
  cudaError_t (*run_cuda)(const StepCall& call, const cuda::Context& context);
  void (*run_cpu)(const StepCall& call, cpu::ParallelFor parallel_for);
};

inline std::vector<Subject>& subjects() {
  static std::vector<Subject> all;
  return all;
}

// Made once per rule by the file generated from rule.subject.cpp.in.
template <class Rule>
struct Registration {
  Registration() {
    subjects().push_back(
        {Rule::kName, state_count<Rule>(), required_state_count<Rule>(), Rule::kHypers, hyper_count<Rule>(),
         scalar_count<Rule>(), reduction_count<Rule>(), selects<Rule>(), has_map<Rule>(), matrices_only<Rule>(),
         total_count<Rule>, cuda::run_step<Rule>,
         [](const StepCall& call, cpu::ParallelFor parallel_for) { cpu::run_step(cpu::kernels<Rule>(), call, parallel_for); }});
  }
};

}  // namespace momentum::sanitizers
