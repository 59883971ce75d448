// Large problems, one after the other on the whole GPU.
#include "cuda/ot/grid_machine.h"
#include "cuda/ot/solve.h"

namespace momentum::cuda::ot {
namespace {

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
