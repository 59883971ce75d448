// The host side of one transport problem on the whole GPU: launches, and one small read-back per sweep or Newton step.
#include <algorithm>
#include <cmath>

#include "core/ot/solver.h"
#include "cuda/ot/grid_newton.h"
#include "cuda/ot/solve.h"

namespace momentum::cuda::ot {
namespace {

constexpr size_t kSharedBytes = 200 * 1024;         // what a block asks for at most
constexpr int kThresholds = 3, kThresholdBits = 6;  // 1, 64 and 4096 times what the error asks for
constexpr Lengths kLineSearch = {{1.0, 0.5, 0.125, 1.0 / 64}};

unsigned blocks_for(int64_t lines) { return unsigned((lines + kBlock - 1) / kBlock); }

__global__ void __launch_bounds__(kBlock)
    potentials_kernel(const Grid __grid_constant__ grid, double unit, double* f, double* g) {
  __shared__ double meeting[33];
  const auto scaled = [&](const Lines& side, int l) {
    return side.marginal[l] > 0 ? unit * (side.potential[l] - side.log2_marginal[l]) : 0.0;
  };
  double difference = 0;
  for_own(grid.rows.size, [&](int i) { difference += grid.rows.marginal[i] * scaled(grid.rows, i); });
  for_own(grid.columns.size, [&](int j) { difference -= grid.columns.marginal[j] * scaled(grid.columns, j); });
  const double shift = block_sum(difference, meeting) / (2 * grid.numbers[kMass]);
  for_own(grid.rows.size, [&](int i) { f[i] = grid.rows.marginal[i] > 0 ? scaled(grid.rows, i) - shift : 0; });
  for_own(grid.columns.size, [&](int j) { g[j] = grid.columns.marginal[j] > 0 ? scaled(grid.columns, j) + shift : 0; });
}

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
    grid_.partial = array<double>(std::max<int64_t>(kLengths * m, 4) * grid_.strips);
    grid_.row_terms = array<double>(grid_.on_chip ? 1 : m * grid_.strips);
    grid_.counts = array<int>(m * grid_.strips);
    grid_.row_counts = array<int>(n);
    grid_.workspace = array<double>(5 * larger);
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
    strips(evaluate_kernel<Costs, 1>, 0, cost_, Lengths{{0, 0, 0, 0}});
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
    launch(direction_kernel, 1, kSolveBlock, 0, grid_, tolerance);
    strips(evaluate_kernel<Costs, kLengths>, 0, cost_, kLineSearch);
    launch(add_columns_kernel, dim3(m, kLengths), kBlock, 0, grid_);
    one_block(choose_kernel, kLineSearch, may_accept);
    read();
    momentum::ot::Step step;
    step.accepted = numbers_[kAccepted] != 0;
    step.error = numbers_[kError];
    step.evaluations = 1;
    step.cg = int32_t(numbers_[kCg]);
    step.kept = int64_t(numbers_[kKept]);
    return step;
  }

  // Estimates, in microseconds: what launches and meetings of a block take, then memory, of which conjugate gradients have the
  // bandwidth of one multiprocessor. Nothing but the choice between sweeps and Newton steps depends on them.
  double sweep_equivalents(const momentum::ot::Step& step) const {
    const double entries = double(batch_.cost.n) * double(batch_.cost.m);
    const double sweep = 8 + 1.5e-6 * entries, cg = 8 + 1.2e-4 * double(step.kept);
    return 4 + (30 + double(step.cg) * cg) / sweep;
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

  void allocate(Lines& side, int64_t size) {
    side.size = int(size);
    for (double** vector : {&side.marginal, &side.log2_marginal, &side.potential, &side.sum, &side.step, &side.bound}) {
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
  bool fresh_ = true;
  size_t shared_ = 0;
  double numbers_[kNumbers] = {};
};

template <class Costs>
cudaError_t run(const momentum::ot::Batch& batch, const Context& context) {
  GridMachine<Costs> machine(batch, context);
  for (int64_t problem = 0; problem < batch.count; ++problem) {
    machine.take(problem);
    momentum::ot::Options options = batch.options;
    options.reg = machine.reg();
    momentum::ot::Solver<GridMachine<Costs>> solver{machine, options};
    const momentum::ot::Outcome out = solver.run();
    double* f = batch.f + problem * batch.cost.n;
    double* g = batch.g + problem * batch.cost.m;
    double numbers[momentum::ot::kNumbers];
    int32_t counts[momentum::ot::kCounts];
    momentum::ot::write_outcome(out, numbers, counts);
    if (out.status == momentum::ot::Status::kInfeasible || out.status == momentum::ot::Status::kInvalid ||
        machine.mass() == 0) {
      machine.clear(f, g);
    } else {
      machine.potentials(f, g);
    }
    machine.write(numbers, batch.numbers + problem * momentum::ot::kNumbers, sizeof numbers);
    machine.write(counts, batch.counts + problem * momentum::ot::kCounts, sizeof counts);
    if (machine.status != cudaSuccess) return machine.status;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t solve_each(const momentum::ot::Batch& batch, const Context& context) {
  const bool matrix = batch.cost.kind == momentum::ot::CostKind::kMatrix;
  if (batch.cost.is_double) return matrix ? run<Matrix<double>>(batch, context) : run<Cloud<double>>(batch, context);
  return matrix ? run<Matrix<float>>(batch, context) : run<Cloud<float>>(batch, context);
}

}  // namespace momentum::cuda::ot
