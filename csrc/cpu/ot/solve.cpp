#include "cpu/ot/solve.h"

#include <algorithm>

#include "cpu/ot/machine.h"

namespace momentum::cpu::ot {
namespace {

// Entries from which one problem keeps all threads busy by itself.
constexpr int64_t kLargeProblem = int64_t(1) << 20;

void one_range(int64_t begin, int64_t end, int64_t, RangeBody body, void* context) { body(begin, end, context); }

void solve_one(const momentum::ot::Batch& batch, int64_t problem, ParallelFor parallel_for) {
  Machine machine(kernels(), batch, problem, parallel_for);
  momentum::ot::Options options = batch.options;
  options.reg = batch.reg[problem];
  momentum::ot::Solver<Machine> solver{machine, options};
  const momentum::ot::Outcome out = solver.run();
  const int64_t n = batch.cost.n, m = batch.cost.m;
  momentum::ot::write_outcome(out, batch.numbers + problem * momentum::ot::kNumbers,
                              batch.counts + problem * momentum::ot::kCounts);
  double* f = batch.f + problem * n;
  double* g = batch.g + problem * m;
  if (out.status == momentum::ot::Status::kInfeasible || out.status == momentum::ot::Status::kInvalid || machine.mass() == 0) {
    std::fill_n(f, n, 0.0);
    std::fill_n(g, m, 0.0);
  } else {
    machine.potentials(f, g);
  }
}

}  // namespace

void solve(const momentum::ot::Batch& batch, ParallelFor parallel_for) {
  if (batch.count == 1 || batch.cost.n * batch.cost.m >= kLargeProblem) {
    for (int64_t problem = 0; problem < batch.count; ++problem) solve_one(batch, problem, parallel_for);
    return;
  }
  parallel_for(
      0, batch.count, 1,
      [](int64_t begin, int64_t end, void* context) {
        const auto& all = *static_cast<const momentum::ot::Batch*>(context);
        for (int64_t problem = begin; problem < end; ++problem) solve_one(all, problem, one_range);
      },
      const_cast<momentum::ot::Batch*>(&batch));
}

}  // namespace momentum::cpu::ot
