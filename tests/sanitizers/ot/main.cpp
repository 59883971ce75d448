// Transport problems under whatever sanitizer the program was built with:
//   transport cuda   the CUDA drivers on the emulator, compared with the CPU driver
//   transport cpu    the CPU driver on four threads, compared with itself on one
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "cpu/isa.h"
#include "cpu/ot/solve.h"
#include "cuda/ot/solve.h"

namespace {

using namespace momentum;

struct Case {
  const char* name;
  int64_t count, n, m;
  ot::CostKind kind;
  bool is_double, large;
  double reg, tol;
  ot::Method method;
  ot::Status status = ot::Status::kConverged;
};

// Odd sizes, rows or columns beyond a block, both drivers, garbage where there is no mass, forbidden entries without a plan.
constexpr Case kCases[] = {
    {"batch", 3, 21, 34, ot::CostKind::kMatrix, true, false, 0.02, 1e-9, ot::Method::kNewton},
    {"single", 2, 40, 33, ot::CostKind::kMatrix, false, false, 0.02, 1e-6, ot::Method::kAuto},
    {"points", 2, 17, 300, ot::CostKind::kEuclidean, false, false, 0.1, 1e-5, ot::Method::kNewton},
    {"large", 1, 65, 290, ot::CostKind::kMatrix, true, true, 0.01, 1e-7, ot::Method::kNewton},
    {"no plan", 2, 40, 33, ot::CostKind::kMatrix, true, false, 0.02, 1e-9, ot::Method::kNewton, ot::Status::kInfeasible},
    {"large, no plan", 1, 65, 290, ot::CostKind::kMatrix, true, true, 0.05, 1e-7, ot::Method::kSinkhorn,
     ot::Status::kInfeasible},
    {"large points", 2, 70, 40, ot::CostKind::kSquaredEuclidean, false, true, 0.05, 1e-5, ot::Method::kSinkhorn},
};

// A congruential sequence in (0, 1): the same numbers everywhere.
class Random {
 public:
  double next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (double(state_ >> 11) + 0.5) * 0x1p-53;
  }

 private:
  uint64_t state_ = 1;
};

struct Problem {
  explicit Problem(const Case& c) {
    Random random;
    const bool matrix = c.kind == ot::CostKind::kMatrix;
    const int64_t d = matrix ? 0 : 2;
    const auto fill = [&](std::vector<double>& values, int64_t size) {
      values.resize(size);
      for (double& x : values) x = random.next();
    };
    const auto normalise = [](std::vector<double>& weights, int64_t size) {
      for (auto at = weights.begin(); at != weights.end(); at += size) {
        double total = 0;
        for (int64_t i = 0; i < size; ++i) total += at[i];
        for (int64_t i = 0; i < size; ++i) at[i] /= total;
      }
    };
    fill(cost, matrix ? c.count * c.n * c.m : 0);
    fill(x, c.count * c.n * d);
    fill(y, c.count * c.m * d);
    fill(a, c.count * c.n);
    fill(b, c.count * c.m);
    a[1] = b[2] = 0;
    if (matrix) {
      for (int64_t j = 0; j < c.m; ++j) cost[c.m + j] = NAN;
    }
    if (c.status == ot::Status::kInfeasible) {  // half of the rows have a third of the columns
      for (int64_t row = 0; row < c.count * c.n; ++row) {
        for (int64_t j = c.m / 3; j < c.m && row % c.n < c.n / 2; ++j) cost[row * c.m + j] = INFINITY;
      }
    }
    normalise(a, c.n);
    normalise(b, c.m);
    for (const auto* doubles : {&cost, &x, &y}) singles.emplace_back(doubles->begin(), doubles->end());
    f.assign(c.count * c.n, NAN);
    g.assign(c.count * c.m, NAN);
    numbers.assign(c.count * ot::kNumbers, NAN);
    counts.assign(c.count * ot::kCounts, -1);
    reg.assign(c.count, c.reg);
    batch.cost = {c.kind, c.is_double, false, nullptr, nullptr, nullptr, c.n, c.m, d};
    const void* data[] = {cost.data(), x.data(), y.data()};
    for (int k = 0; k < 3; ++k) data[k] = c.is_double ? data[k] : singles[k].data();
    batch.cost.matrix = data[0];
    batch.cost.x = data[1];
    batch.cost.y = data[2];
    batch.count = c.count;
    batch.a = a.data();
    batch.b = b.data();
    batch.reg = reg.data();
    batch.f = f.data();
    batch.g = g.data();
    batch.numbers = numbers.data();
    batch.counts = counts.data();
    batch.options.tol = c.tol;
    batch.options.method = c.method;
  }

  std::vector<double> cost, x, y, a, b, f, g, numbers, reg;
  std::vector<std::vector<float>> singles;
  std::vector<int32_t> counts;
  ot::Batch batch;
};

void serially(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  if (begin < end) body(begin, end, context);
}

void on_four_threads(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  std::vector<std::thread> threads;
  const int64_t part = (end - begin + 3) / 4;
  for (int64_t first = begin; first < end; first += part) {
    threads.emplace_back(body, first, std::min(end, first + part), context);
  }
  for (std::thread& thread : threads) thread.join();
}

void on_the_emulator(const Case& c, const ot::Batch& batch) {
  std::vector<std::unique_ptr<unsigned char[]>> blocks;
  cuda::Context context;
  context.owner = &blocks;
  context.allocate = [](size_t bytes, void* owner) -> void* {
    auto& all = *static_cast<std::vector<std::unique_ptr<unsigned char[]>>*>(owner);
    all.push_back(std::make_unique<unsigned char[]>(bytes));
    std::memset(all.back().get(), 0xff, bytes);
    return all.back().get();
  };
  const cudaError_t error = c.large ? cuda::ot::solve_each(batch, context) : cuda::ot::solve_batch(batch, context);
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", c.name, cudaGetErrorString(error));
  std::exit(1);
}

// Potentials of two solutions differ by about the error over the smallest weights; on the CPU by nothing.
void compare(const Case& c, const std::vector<double>& actual, const std::vector<double>& expected, bool exact) {
  const double bound = exact ? 0 : 1e4 * c.tol;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i] || std::fabs(actual[i] - expected[i]) <= bound) continue;
    std::fprintf(stderr, "%s: element %zu is %.9g, expected %.9g\n", c.name, i, actual[i], expected[i]);
    std::exit(1);
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::puts(cpu::name(cpu::isa()));
  const bool emulated = count > 1 && std::strcmp(arguments[1], "cuda") == 0;
  for (const Case& c : kCases) {
    Problem actual(c), expected(c);
    cpu::ot::solve(expected.batch, serially);
    if (emulated) {
      on_the_emulator(c, actual.batch);
    } else {
      cpu::ot::solve(actual.batch, on_four_threads);
    }
    for (int64_t k = 0; k < c.count; ++k) {
      const auto status = int32_t(c.status);
      if (actual.counts[k * ot::kCounts] == status && expected.counts[k * ot::kCounts] == status) continue;
      std::fprintf(stderr, "%s: problem %d ended with status %d\n", c.name, int(k), actual.counts[k * ot::kCounts]);
      return 1;
    }
    compare(c, actual.f, expected.f, !emulated);
    compare(c, actual.g, expected.g, !emulated);
    std::printf("%s\n", c.name);
  }
  return 0;
}
