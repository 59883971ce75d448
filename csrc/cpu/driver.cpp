#include "cpu/driver.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/bits.h"
#include "core/perpendicular.h"
#include "cpu/dispatch.h"
#include "cpu/passes.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kUnit = 1024;       // elements per unit of the map's work
constexpr int64_t kMapGrain = 65536;  // elements worth waking a thread for
constexpr int64_t kTensorCost = 128;  // what a tensor costs beside its elements, in elements

bool uses_matrix_scales(const CommonArgs& common) {
  for (const StateFormat& format : common.state_formats) {
    if (format.scaling != Scaling::kBlock) return true;
  }
  return false;
}

}  // namespace

// The maxima of rows and columns are found first, by stepping without storing; then the map stores with them as scales.
void Passes::find_scales() {
  const auto& tensors = tensors_;
  const auto& formats = common_.state_formats;
  scales_.assign(tensors.size(), {});
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorArgs& t = tensors[i];
    size_t count = 0, begin[kMaxStates] = {};
    for (int k = 0; k < kMaxStates; ++k) {
      begin[k] = count;
      if (has_own_scales(t, k)) count += size_t(matrix_scales(formats[k], t.rows, t.cols).count());
    }
    if (count == 0) continue;
    chosen.push_back(int64_t(i));
    scales_[i].values.assign(count, 0.0f);
    for (int k = 0; k < kMaxStates; ++k) {
      if (has_own_scales(t, k)) scales_[i].of_state[k] = scales_[i].values.data() + begin[k];
    }
  }
  std::vector<int64_t> units(1, 0);
  for (const int64_t i : chosen) units.push_back(units.back() + (tensors[size_t(i)].numel + kUnit - 1) / kUnit);
  std::mutex merging;
  parallel(units.back(), kMapGrain / kUnit, [&](int64_t begin, int64_t end) {
    size_t place = size_t(std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1);
    for (int64_t unit = begin; unit < end; ++place) {
      const int64_t last = std::min(end, units[place + 1]), i = chosen[place];
      const TensorArgs& t = tensors[size_t(i)];
      NewScales& found = scales_[size_t(i)];
      std::vector<uint32_t> own(found.values.size(), 0);
      uint32_t* maxima[kMaxStates] = {};
      for (int k = 0; k < kMaxStates; ++k) {
        if (found.of_state[k] != nullptr) maxima[k] = own.data() + (found.of_state[k] - found.values.data());
      }
      kernels_.maxima(task(i), (unit - units[place]) * kUnit, std::min((last - units[place]) * kUnit, t.numel), maxima);
      const std::lock_guard lock(merging);  // of maxima: their order does not matter
      for (size_t s = 0; s < own.size(); ++s) {
        const auto known = bit_cast<uint32_t>(found.values[s]);
        found.values[s] = bit_cast<float>(std::max(known, own[s]));
      }
      unit = last;
    }
  });
}

void Passes::keep_scales() {
  for (size_t i = 0; i < scales_.size(); ++i) {
    const TensorArgs& t = tensors_[i];
    for (int k = 0; k < kMaxStates; ++k) {
      if (scales_[i].of_state[k] == nullptr) continue;
      const int64_t count = matrix_scales(common_.state_formats[k], t.rows, t.cols).count();
      std::copy_n(scales_[i].of_state[k], count, static_cast<float*>(t.scales[k]));
    }
  }
}

void Passes::map() {
  if (uses_matrix_scales(common_)) find_scales();
  const auto& tensors = tensors_;
  const int64_t count = int64_t(tensors.size());
  std::vector<int64_t> units(count + 1, 0);
  for (int64_t i = 0; i < count; ++i) units[i + 1] = units[i] + (tensors[i].numel + kUnit - 1) / kUnit;
  int64_t work = kTensorCost * count;
  for (const TensorArgs& t : tensors) work += t.numel;
  const int64_t grain = std::max<int64_t>(1, units[count] * kMapGrain / std::max<int64_t>(work, 1));
  parallel(units[count], grain, [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1;
    for (int64_t unit = begin; unit < end; ++i) {
      const int64_t last = std::min(end, units[i + 1]);
      if (unit == last) continue;
      const int64_t first = (unit - units[i]) * kUnit;
      const int64_t stop = std::min((last - units[i]) * kUnit, tensors[i].numel);
      Task work = task(i);
      if (!scales_.empty()) work.new_scales = scales_[size_t(i)].of_state;
      kernels_.map(work, first, stop);
      unit = last;
    }
  });
  keep_scales();
  if (common_.steps == nullptr) return;
  for (int64_t i = 0; i < count; ++i) common_.steps[first_ + i] += 1.0f;
}

namespace {

// Elements of tensors whose passes run one after another, before those of the next tensors: what a pass has read is then still
// in a cache when the next one reads it again.
int64_t group_size() {
  constexpr int64_t kPerProcessor = int64_t(1) << 18;  // its share of the last cache has 16 bytes for each, and more
  return kPerProcessor * std::max(1u, std::thread::hardware_concurrency());
}

// The end of the group that begins with tensor `begin`.
int64_t end_of_group(const TensorArgsVector& tensors, int64_t begin) {
  const int64_t count = int64_t(tensors.size()), size = group_size();
  int64_t end = begin;
  for (int64_t elements = 0; end < count && elements < size; ++end) elements += tensors[size_t(end)].numel;
  return end;
}

// The passes of a stage, or all of them.
class Stages {
 public:
  Stages(const Kernels& kernels, const StepCall& step, ParallelFor parallel_for)
      : stage_(step.stage), call_(kernels, step.tensors, step.common, parallel_for) {
    if (step.common.perpendicular == nullptr) return;
    before_ = rules::perpendicular_pass(step.common);
    perpendicular_.emplace(cpu::kernels<rules::Perpendicular>(), step.tensors, before_, parallel_for);
  }

  bool has_reductions() const { return call_.reductions() > 0 || perpendicular_; }

  // For tensors [begin, end).
  void run(int64_t begin, int64_t end) {
    const int reductions = call_.reductions();
    call_.choose(begin, end);
    if (perpendicular_) {
      perpendicular_->choose(begin, end);
      if (runs(2 * reductions + 1)) perpendicular_->reduce(0);
      if (runs(2 * reductions + 2)) perpendicular_->finalize(0);
    }
    for (int k = 0; k < reductions; ++k) {
      if (runs(2 * k)) call_.reduce(k);
      if (runs(2 * k + 1)) call_.finalize(k);
    }
    if (!runs(2 * reductions)) return;
    call_.set_completed(reductions);
    call_.map();
  }

 private:
  bool runs(int stage) const { return stage_ == kWholeStep || stage_ == stage; }

  const int stage_;
  Passes call_;
  CommonArgs before_;
  std::optional<Passes> perpendicular_;
};

}  // namespace

void run_step(const Kernels& kernels, const StepCall& step, ParallelFor parallel_for) {
  if (step.common.found_inf != nullptr && *step.common.found_inf != 0.0f) return;
  Stages stages(kernels, step, parallel_for);
  const int64_t count = int64_t(step.tensors.size());
  const bool grouped = step.stage == kWholeStep && stages.has_reductions();
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    end = grouped ? end_of_group(step.tensors, begin) : count;
    stages.run(begin, end);
  }
}

}  // namespace momentum::cpu
