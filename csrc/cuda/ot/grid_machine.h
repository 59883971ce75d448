// The host side of one transport problem on the whole GPU: launches, and one small read-back per sweep or Newton step.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/ot/solver.h"
#include "cuda/driver.h"
#include "cuda/ot/grid_direction.h"
#include "cuda/ot/grid_lists.h"
#include "cuda/ot/grid_scan.h"
#include "cuda/ot/grid_sweep.h"

namespace momentum::cuda::ot {

inline constexpr size_t kSharedBytes = 200 * 1024;         // what a block asks for at most
inline constexpr int kThresholds = 3, kThresholdBits = 6;  // 1, 64 and 4096 times what the error asks for
inline constexpr int kFirstCgSteps = 96;  // that are launched for a Newton step; later ones follow what was needed

inline unsigned blocks_for(int64_t lines, int each = kBlock) { return unsigned((lines + each - 1) / each); }

// Errors stay in `status`: after the first, nothing more is launched and the solver sees numbers that end it.
template <class Costs>
class GridMachine {
 public:
  GridMachine(const momentum::ot::Batch& batch, const Context& context) : batch_(batch), context_(context) {
    const int64_t n = batch.cost.n, m = batch.cost.m, larger = std::max(n, m);
    grid_.strips = int((n + kStripRows - 1) / kStripRows);
    grid_.capacity = std::min(n * m, 128 * larger);
    grid_.on_chip = size_t(2 * m) * sizeof(double) <= kSharedBytes;
    allocate(grid_.rows, n);
    allocate(grid_.columns, m);
    grid_.partial = array<double>(std::max<int64_t>(kLengths * m, kStripFacts) * grid_.strips);
    grid_.row_terms = array<double>(grid_.on_chip ? 1 : m * grid_.strips);
    grid_.counts = array<int>(m * grid_.strips);
    grid_.row_counts = array<int>(n);
    grid_.workspace = array<double>(6 * larger);
    grid_.totals = array<double>(int64_t(kTotals) * blocks_for(larger, kBlockLines));
    grid_.ticket = array<uint32_t>(1);
    keep(cudaMemsetAsync(grid_.ticket, 0, sizeof(uint32_t), context.stream));
    grid_.numbers = array<double>(kNumbers);
    shared_ = grid_.on_chip ? size_t(2 * m) * sizeof(double) : 0;
    if (shared_ > 48 * 1024) {
      keep(cudaFuncSetAttribute(sweep_kernel<Costs>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_)));
    }
  }

  // Starts on another problem of the batch.
  void take(int64_t problem) {
    const int64_t n = batch_.cost.n, m = batch_.cost.m;
    cost_ = Costs::of(batch_.cost, problem);
    cg_steps_ = kFirstCgSteps;  // a problem's bits do not depend on the one before
    reg_ = batch_.reg[problem];
    keep(
        cudaMemcpyAsync(grid_.rows.marginal, batch_.a + problem * n, size_t(n) * 8, cudaMemcpyDeviceToDevice, context_.stream));
    keep(cudaMemcpyAsync(grid_.columns.marginal, batch_.b + problem * m, size_t(m) * 8, cudaMemcpyDeviceToDevice,
                         context_.stream));
    keep(cudaMemsetAsync(grid_.rows.step, 0, size_t(n) * 8, context_.stream));
    keep(cudaMemsetAsync(grid_.columns.step, 0, size_t(m) * 8, context_.stream));
  }

  momentum::ot::Scan scan() {
    one_block(marginals_kernel);
    strips(scan_kernel<Costs>, 0, cost_);
    one_block(scan_finish_kernel);
    read();
    momentum::ot::Scan result;
    result.mass = mass_ = numbers_[kMass];
    result.invalid = numbers_[kInvalid] != 0 || status != cudaSuccess;
    result.infeasible = numbers_[kUnreached] != 0;
    result.forbidden = numbers_[kForbidden] != 0;
    result.cost_min = cost_min_ = numbers_[kLow];
    result.cost_max = numbers_[kHigh];
    return result;
  }

  void start(double k) {
    grid_.k = k;
    fresh_ = true;
    lines(temperature_kernel, true, 0.5 * k * cost_min_, 1.0);
  }

  void set_temperature(double k) {
    const double factor = k / grid_.k;
    grid_.k = k;
    fresh_ = true;
    lines(temperature_kernel, false, 0.0, factor);
  }

  double sweep() {
    const unsigned m = blocks_for(batch_.cost.m);
    if (!fresh_) launch(columns_kernel<Costs>, m, kBlock, 0, grid_, cost_);
    strips(sweep_kernel<Costs>, shared_, cost_);
    launch(add_columns_kernel, m, kBlock, 0, grid_);
    one_block(measure_kernel, true);
    fresh_ = false;
    read();
    return numbers_[kError];
  }

  double verify() {
    strips(evaluate_kernel<Costs, 1>, 0, cost_);
    launch(add_columns_kernel, blocks_for(batch_.cost.m), kBlock, 0, grid_);
    one_block(measure_kernel, false);
    fresh_ = false;
    read();
    return numbers_[kError];
  }

  momentum::ot::Step newton(double theta, double tolerance, bool may_accept) {
    const unsigned m = blocks_for(batch_.cost.m);
    const double log2_theta = std::log2(theta);
    lines(bounds_kernel);
    for (int attempt = 0; attempt < kThresholds; ++attempt) {
      const double tried = log2_theta + kThresholdBits * attempt;
      strips(count_kernel<Costs>, 0, cost_, attempt, tried);
      launch(strips_kernel, m, kBlock, 0, grid_, attempt);
      one_block(begins_kernel, attempt, tried);
    }
    strips(fill_kernel<Costs>, 0, cost_);
    const int launched = cg_steps_;
    direction(tolerance);
    strips(evaluate_kernel<Costs, kLengths>, 0, cost_);
    launch(add_columns_kernel, dim3(m, kLengths), kBlock, 0, grid_);
    one_block(choose_kernel, may_accept);
    read();
    momentum::ot::Step step;
    step.accepted = numbers_[kAccepted] != 0;
    step.error = numbers_[kError];
    step.reads = 1;
    step.points = kLengths;
    step.cg = int32_t(numbers_[kCg]);
    step.kept = int64_t(numbers_[kKept]);
    cg_steps_ = std::min(step.cg + step.cg / 4 + 16, kCgSteps);
    if (step.cg == launched) cg_steps_ = std::min(2 * launched, kCgSteps);
    return step;
  }

  // Estimates, in microseconds: what launches take, then memory; the sparse plan is in cache. Nothing but the choice between
  // sweeps and Newton steps depends on them.
  double sweep_equivalents(const momentum::ot::Step& step) const {
    const double entries = double(batch_.cost.n) * double(batch_.cost.m);
    const double sweep = 8 + 1.5e-6 * entries, cg = 8 + 2e-5 * double(step.kept);
    return 4 + (30 + double(step.cg) * cg) / sweep;
  }

  // Both orders of rows, then one read-back.
  double shortage() {
    const struct {
      const double* order;
      int number;
    } looks[] = {{grid_.rows.rise, kShortage}, {grid_.rows.potential, kOtherShortage}};
    for (const auto& look : looks) {
      launch(reach_kernel<Costs>, blocks_for(batch_.cost.m), kBlock, 0, grid_, cost_, look.order);
      launch(shortage_kernel, blocks_for(batch_.cost.n), kBlock, 0, grid_, look.order, look.number);
    }
    read();
    return std::max(numbers_[kShortage], numbers_[kOtherShortage]);
  }

  double rounding() const {
    const double exponential = sizeof(typename Costs::Type) == 4 ? 0x1p-27 : 0;
    return (exponential + 0x1p-54 * numbers_[kLargest]) * mass_;
  }

  double value() {
    one_block(value_kernel, reg_);
    read();
    return numbers_[kValue];
  }

  void potentials(double* f, double* g) { one_block(potentials_kernel, reg_ * momentum::ot::kLn2, f, g); }

  void clear(double* f, double* g) {
    keep(cudaMemsetAsync(f, 0, size_t(batch_.cost.n) * 8, context_.stream));
    keep(cudaMemsetAsync(g, 0, size_t(batch_.cost.m) * 8, context_.stream));
  }

  void write(const void* from, void* to, size_t bytes) {
    keep(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context_.stream));
  }

  double mass() const { return mass_; }
  double reg() const { return reg_; }

  cudaError_t status = cudaSuccess;

 private:
  template <class T>
  T* array(int64_t count) {
    return static_cast<T*>(context_.allocate(size_t(count) * sizeof(T), context_.owner));
  }

  // How many steps are needed is known on the device alone, where kernels after the last return at once. As many are launched
  // as the Newton step before needed, and some more; where those were too few, the direction is a shorter one, and still
  // ascends.
  void direction(double tolerance) {
    const int64_t larger = std::max(batch_.cost.n, batch_.cost.m), smaller = std::min(batch_.cost.n, batch_.cost.m);
    const unsigned outer = blocks_for(smaller, kBlockLines), inner = blocks_for(larger, kBlockLines);
    const unsigned elements = blocks_for(smaller);
    launch(system_kernel, outer, kBlock, 0, grid_);
    launch(residual_kernel, elements, kBlock, 0, grid_, true, tolerance);
    for (int step = 0; step < cg_steps_; ++step) {
      launch(middle_kernel, inner, kBlock, 0, grid_);
      launch(curvature_kernel, outer, kBlock, 0, grid_);
      launch(residual_kernel, elements, kBlock, 0, grid_, false, tolerance);
    }
    launch(direction_kernel, inner, kBlock, 0, grid_);
  }

  void allocate(Lines& side, int64_t size) {
    side.size = int(size);
    for (double** vector :
         {&side.marginal, &side.log2_marginal, &side.potential, &side.sum, &side.step, &side.rise, &side.bound}) {
      *vector = array<double>(size);
    }
    side.next_sum = array<double>(kLengths * size);
    side.begin = array<int64_t>(size + 1);
    side.index = array<int>(grid_.capacity);
    side.value = array<double>(grid_.capacity);
  }

  void keep(cudaError_t error) { status = status == cudaSuccess ? error : status; }

  template <class... P, class... Arguments>
  void launch(void (*kernel)(P...), dim3 blocks, unsigned threads, size_t shared, const Arguments&... arguments) {
    if (status == cudaSuccess) keep(simt::launch(kernel, blocks, threads, shared, context_.stream, arguments...));
  }
  template <class... P, class... Arguments>
  void strips(void (*kernel)(P...), size_t shared, const Arguments&... arguments) {
    launch(kernel, unsigned(grid_.strips), kBlock, shared, grid_, arguments...);
  }
  template <class... P, class... Arguments>
  void lines(void (*kernel)(P...), const Arguments&... arguments) {
    launch(kernel, blocks_for(batch_.cost.n + batch_.cost.m), kBlock, 0, grid_, arguments...);
  }
  template <class... P, class... Arguments>
  void one_block(void (*kernel)(P...), const Arguments&... arguments) {
    launch(kernel, 1, kBlock, 0, grid_, arguments...);
  }

  void read() {
    if (status == cudaSuccess) {
      keep(cudaMemcpyAsync(numbers_, grid_.numbers, sizeof numbers_, cudaMemcpyDeviceToHost, context_.stream));
    }
    if (status == cudaSuccess) keep(cudaStreamSynchronize(context_.stream));
    if (status != cudaSuccess) numbers_[kError] = 0;  // nothing is left to do
  }

  const momentum::ot::Batch& batch_;
  const Context& context_;
  Grid grid_{};
  Costs cost_{};
  double reg_ = 1, mass_ = 0, cost_min_ = 0;
  int cg_steps_ = kFirstCgSteps;
  bool fresh_ = true;
  size_t shared_ = 0;
  double numbers_[kNumbers] = {};
};

}  // namespace momentum::cuda::ot
