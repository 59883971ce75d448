#include "cpu/samgs.h"

#include "cpu/isa.h"
#include "cpu/pieces.h"

namespace momentum::cpu {

void decide_samgs(const SamgsDecision& d) {
  double squares[samgs::kMostTasks] = {};
  double norms = 0, similarities = 0;
  for (int64_t i = 0; i < d.tasks; ++i) {
    for (int64_t k = 0; k < d.tensors; ++k) squares[i] += d.squares[i * d.tensors + k];
    norms += math::sqrt(squares[i]);
    for (int64_t j = 0; j < i; ++j) similarities += samgs::similarity(squares[i], squares[j]);
  }
  samgs::decide(d, similarities);
  for (int64_t i = 0; i < d.tasks; ++i) d.weights[i] = samgs::equal_weight(norms, math::sqrt(squares[i]));
}

void run_samgs(const SamgsCall& call, ParallelFor parallel_for) {
  auto range = baseline::samgs_range;
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
  if (isa() >= Isa::kAvx512) range = avx512::samgs_range;
  if (isa() == Isa::kAvx2) range = avx2::samgs_range;
#endif
  std::vector<int64_t> sizes;
  for (const SamgsTensor& t : call.tensors) sizes.push_back(t.numel);
  over_pieces(sizes, parallel_for, [&](int64_t index, int64_t begin, int64_t end) { range(call, index, begin, end); });
}

}  // namespace momentum::cpu
