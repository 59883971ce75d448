// One transport problem on the CPU: the arithmetic behind core/ot/solver.h.
//
// Rows are walked in strips whose borders depend on the shape alone, each with column sums of its own that are added in order:
// the result has the same bits on any number of threads. A row is exponentiated once per sweep. Its sum, found in the old
// iterate, says by what to scale it, and the scaled row, still in cache, is what the column sums are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "core/ot/solver.h"
#include "cpu/driver.h"
#include "cpu/ot/costs.h"

namespace momentum::cpu::ot {

inline constexpr int kTried = momentum::ot::kLengths - 1;  // step lengths in one read, once the first is refused

inline double l1(const std::vector<double>& x, const double* y) {
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) total += std::fabs(x[i] - y[i]);
  return total;
}

inline double total(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value;
  return sum;
}

class Machine {
 public:
  Machine(const Kernels& kernels, const momentum::ot::Batch& batch, int64_t problem, ParallelFor parallel_for);

  momentum::ot::Scan scan();
  void start(double k);
  void set_temperature(double k);
  double sweep();
  momentum::ot::Step newton(double theta, double tolerance, bool may_accept);
  double sweep_equivalents(const momentum::ot::Step& step) const;
  double rounding() const;
  double value() const;
  double verify();
  double shortage();
  double mass() const { return mass_; }
  // Potentials in units of the cost, relative to the measure a x b, with a.f = b.g.
  void potentials(double* f, double* g) const;

 private:
  struct Strip {
    std::vector<double> column, cost, values;
    std::vector<double> p;  // of up to kTogether rows that wait to be added to `column`
    double scale[kTogether];
    int64_t waiting = 0;
    std::vector<int32_t> indices;
    std::vector<int64_t> counts;
  };

  template <class Body>
  void for_strips(Body&& body);
  template <class Body>
  void for_rows(int64_t columns, Body&& body);
  void add_columns(int64_t count, double* columns);
  void add_rows(Strip& strip);
  // Sums of `count` plans in one read of the cost; potentials and sums are [count][n] and [count][m].
  void evaluate(int count, const double* u, const double* v, double* rows, double* columns);
  double column_log2_sum(int64_t j) const;
  void update_columns();
  double shortage_of(const std::vector<double>& order);
  int64_t build(double theta);
  int solve(double tolerance);

  const Kernels& kernels_;
  ParallelFor parallel_for_;
  Costs costs_;
  int64_t n_, m_, strip_rows_;
  double reg_, k_ = 0, mass_ = 0, cost_min_ = 0;
  bool fresh_ = true;  // row and column sums are not known for these potentials
  std::vector<double> a_, b_, log2_a_, log2_b_;
  std::vector<double> u_, v_, r_, c_;                // potentials, and the sums of their plan
  std::vector<double> rise_;                         // of u in the last sweep
  std::vector<double> dx_, dy_, u1_, v1_, r1_, c1_;  // a Newton direction (natural logarithms), and points it leads to
  std::vector<Strip> strips_;
  std::vector<int64_t> row_begin_, column_begin_;
  std::vector<int32_t> row_index_, column_index_;
  std::vector<double> row_value_, column_value_, workspace_, rhs_;
};

template <class Body>
void Machine::for_strips(Body&& body) {
  using Erased = std::remove_reference_t<Body>;
  parallel_for_(
      0, int64_t(strips_.size()), 1,
      [](int64_t begin, int64_t end, void* context) {
        for (int64_t s = begin; s < end; ++s) (*static_cast<Erased*>(context))(s);
      },
      &body);
}

}  // namespace momentum::cpu::ot
