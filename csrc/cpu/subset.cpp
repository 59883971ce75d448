#include "cpu/subset.h"

#include <algorithm>
#include <vector>

#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "cpu/isa.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kGrain = 128;  // tiles worth waking a thread for

}  // namespace

template <class Rule>
const SubsetKernels& subset_kernels() {
#if defined(__x86_64__) && !defined(MOMENTUM_CPU_BASELINE_ONLY)
  if (isa() >= Isa::kAvx512) return avx512::subset_kernels<Rule>();
  if (isa() == Isa::kAvx2) return avx2::subset_kernels<Rule>();
#endif
  return baseline::subset_kernels<Rule>();
}

template const SubsetKernels& subset_kernels<rules::Adam>();
template const SubsetKernels& subset_kernels<rules::Lion>();
template const SubsetKernels& subset_kernels<rules::Sgd>();
template const SubsetKernels& subset_kernels<rules::Spam>();

void run_subset(const SubsetKernels& kernels, const SubsetCall& call, ParallelFor parallel_for) {
  if (call.common.found_inf != nullptr && *call.common.found_inf != 0.0f) return;
  ConstantsStorage constants;
  kernels.constants(call.common, &constants);
  std::vector<int64_t> tiles(1, 0);
  const Axis axis = call.options.axis;
  for (const SubsetTensor& t : call.tensors) {
    tiles.push_back(tiles.back() + tile_count(axis, t, tiles_per_row(axis, make_lines(axis, t), t.cols)));
  }
  auto body = [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(tiles.begin(), tiles.end(), begin) - tiles.begin() - 1;
    for (int64_t tile = begin; tile < end; ++i) {
      const int64_t last = std::min(end, tiles[i + 1]);
      if (tile == last) continue;
      kernels.map({&call, &call.tensors[i], &constants, i}, tile - tiles[i], last - tiles[i]);
      tile = last;
    }
  };
  if (tiles.back() > 0) {
    parallel_for(
        0, tiles.back(), kGrain,
        [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); }, &body);
  }
  for (size_t i = 0; i < call.tensors.size(); ++i) call.common.steps[i] += 1.0f;
}

}  // namespace momentum::cpu
