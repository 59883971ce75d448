#include "cpu/ot/machine.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace momentum::cpu::ot {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int64_t kStripEntries = 32768;  // entries of the cost worth a strip of their own
constexpr int64_t kMaxStrips = 32;
// Sums outside are made again from their largest term: entries below 2^-1022 are 0, and may have been part of them.
constexpr double kSmallestSum = 1e-200, kLargestSum = 1e200;

double l1(const std::vector<double>& x, const std::vector<double>& y) {
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) total += std::fabs(x[i] - y[i]);
  return total;
}

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) total += x[i] * y[i];
  return total;
}

double total(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value;
  return sum;
}

double largest_finite(const std::vector<double>& x) {
  double largest = 0;
  for (const double value : x) {
    const double magnitude = std::fabs(value);
    if (magnitude < kInf && magnitude > largest) largest = magnitude;
  }
  return largest;
}

}  // namespace

Machine::Machine(const Kernels& kernels, const momentum::ot::Batch& batch, int64_t problem, ParallelFor parallel_for)
    : kernels_(kernels),
      parallel_for_(parallel_for),
      costs_(kernels, batch.cost, problem),
      n_(batch.cost.n),
      m_(batch.cost.m),
      reg_(batch.reg[problem]),
      a_(batch.a + problem * n_, batch.a + (problem + 1) * n_),
      b_(batch.b + problem * m_, batch.b + (problem + 1) * m_) {
  const int64_t wanted = std::clamp<int64_t>(n_ * m_ / kStripEntries, 1, kMaxStrips);
  strip_rows_ = std::max<int64_t>(1, (n_ + wanted - 1) / wanted);
  strips_.resize((n_ + strip_rows_ - 1) / strip_rows_);
  for (Strip& strip : strips_) {
    strip.column.resize(m_);
    strip.p.resize(m_);
    strip.cost.resize(costs_.of_points() ? m_ : 0);
  }
  for (auto* rows : {&u_, &r_, &dx_, &u1_, &r1_, &log2_a_}) rows->resize(n_);
  for (auto* columns : {&v_, &c_, &dy_, &v1_, &c1_, &log2_b_}) columns->resize(m_);
}

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

// body(strip, row number, row) for every row that has mass.
template <class Body>
void Machine::for_rows(Body&& body) {
  for_strips([&](int64_t s) {
    Strip& strip = strips_[s];
    std::fill(strip.column.begin(), strip.column.end(), 0.0);
    for (int64_t i = s * strip_rows_; i < std::min(n_, (s + 1) * strip_rows_); ++i) {
      if (a_[i] > 0) body(strip, i, costs_.row(i, strip.cost.data()));
    }
  });
}

void Machine::add_columns(std::vector<double>& columns) {
  std::fill(columns.begin(), columns.end(), 0.0);
  for (const Strip& strip : strips_) kernels_.add(m_, 1.0, strip.column.data(), columns.data());
}

momentum::ot::Scan Machine::scan() {
  momentum::ot::Scan result;
  double mass_b = 0;
  for (const double x : a_) {
    result.invalid |= !(x >= 0 && x < kInf);
    result.mass += x;
  }
  for (const double x : b_) {
    result.invalid |= !(x >= 0 && x < kInf);
    mass_b += x;
  }
  mass_ = result.mass;
  // Marginals that were normalised in float32 differ by about its rounding.
  result.invalid |= !(std::fabs(mass_ - mass_b) <= 1e-5 * mass_) || !(reg_ > 0 && reg_ < kInf);
  if (result.invalid || mass_ == 0) return result;
  for (double& x : b_) x *= mass_ / mass_b;
  for (int64_t i = 0; i < n_; ++i) log2_a_[i] = std::log2(a_[i]);
  for (int64_t j = 0; j < m_; ++j) log2_b_[j] = std::log2(b_[j]);

  std::vector<double> low(n_, kInf), high(n_, -kInf), support(m_);
  for (int64_t j = 0; j < m_; ++j) support[j] = b_[j] > 0 ? 0.0 : -kInf;
  std::vector<char> invalid(n_, 0);
  for_rows([&](Strip& strip, int64_t i, Row row) {
    const RowScan found = kernels_.scan(row, m_, log2_b_.data());
    low[i] = found.low;
    high[i] = found.high;
    invalid[i] = found.invalid;
    // At k = 0 a finite entry counts 1, an infinite one is NaN and counts 0: columns that no row reaches stay at 0.
    kernels_.exponentials(row, m_, 0.0, 0.0, support.data(), strip.p.data());
    kernels_.add(m_, 1.0, strip.p.data(), strip.column.data());
  });
  add_columns(c_);
  for (int64_t j = 0; j < m_; ++j) result.infeasible |= b_[j] > 0 && c_[j] == 0;
  result.cost_min = kInf;
  result.cost_max = -kInf;
  for (int64_t i = 0; i < n_; ++i) {
    if (!(a_[i] > 0)) continue;
    result.invalid |= invalid[i] != 0;
    result.infeasible |= low[i] == kInf;
    result.cost_min = std::min(result.cost_min, low[i]);
    result.cost_max = std::max(result.cost_max, high[i]);
  }
  cost_min_ = result.cost_min;
  return result;
}

void Machine::start(double k) {
  k_ = k;
  fresh_ = true;
  for (int64_t i = 0; i < n_; ++i) u_[i] = log2_a_[i] + 0.5 * k * cost_min_;
  for (int64_t j = 0; j < m_; ++j) v_[j] = log2_b_[j] + 0.5 * k * cost_min_;
}

void Machine::set_temperature(double k) {
  const double factor = k / k_;
  k_ = k;
  fresh_ = true;
  for (int64_t i = 0; i < n_; ++i) {
    if (a_[i] > 0) u_[i] = momentum::ot::rescale(u_[i], log2_a_[i], factor);
  }
  for (int64_t j = 0; j < m_; ++j) {
    if (b_[j] > 0) v_[j] = momentum::ot::rescale(v_[j], log2_b_[j], factor);
  }
}

// log2 of the column's sum for v_j = 0, from its largest term.
double Machine::column_log2_sum(int64_t j) const {
  double top = -kInf;
  for (int64_t i = 0; i < n_; ++i) {
    if (a_[i] > 0) top = std::max(top, u_[i] - k_ * costs_.at(i, j));
  }
  double sum = 0;
  for (int64_t i = 0; i < n_; ++i) {
    if (a_[i] > 0) sum += std::exp2(u_[i] - k_ * costs_.at(i, j) - top);
  }
  return top + std::log2(sum);
}

void Machine::update_columns() {
  for (int64_t j = 0; j < m_; ++j) {
    if (!(b_[j] > 0)) continue;
    if (c_[j] > kSmallestSum && c_[j] < kLargestSum) {
      v_[j] += std::log2(b_[j] / c_[j]);
    } else {
      v_[j] = log2_b_[j] - column_log2_sum(j);
    }
  }
}

double Machine::sweep() {
  if (!fresh_) update_columns();
  for_rows([&](Strip& strip, int64_t i, Row row) {
    double sum = kernels_.exponentials(row, m_, k_, u_[i], v_.data(), strip.p.data());
    if (!(sum > kSmallestSum && sum < kLargestSum)) {
      u_[i] = -kernels_.maximum(row, m_, k_, v_.data());
      sum = kernels_.exponentials(row, m_, k_, u_[i], v_.data(), strip.p.data());
    }
    u_[i] += std::log2(a_[i] / sum);
    kernels_.add(m_, a_[i] / sum, strip.p.data(), strip.column.data());
  });
  add_columns(c_);
  r_ = a_;
  fresh_ = false;
  return l1(c_, b_);
}

double Machine::evaluate(const std::vector<double>& u, const std::vector<double>& v, std::vector<double>& rows,
                         std::vector<double>& columns) {
  std::fill(rows.begin(), rows.end(), 0.0);
  for_rows([&](Strip& strip, int64_t i, Row row) {
    rows[i] = kernels_.exponentials(row, m_, k_, u[i], v.data(), strip.p.data());
    kernels_.add(m_, 1.0, strip.p.data(), strip.column.data());
  });
  add_columns(columns);
  return l1(rows, a_) + l1(columns, b_);
}

double Machine::verify() {
  const double error = evaluate(u_, v_, r_, c_);
  fresh_ = false;
  return error;
}

// The sparse plan, by rows and by columns. Returns the number of entries.
int64_t Machine::build(double theta) {
  std::vector<double>& log2_column = c1_;  // free until a point is evaluated
  for (int64_t j = 0; j < m_; ++j) log2_column[j] = c_[j] > 0 ? std::log2(c_[j] / double(n_)) : kInf;
  const double log2_theta = std::log2(theta);
  for (Strip& strip : strips_) {
    strip.indices.clear();
    strip.values.clear();
    strip.counts.assign(strip_rows_, 0);
  }
  for_strips([&](int64_t s) {
    Strip& strip = strips_[s];
    const int64_t first = s * strip_rows_;
    size_t used = 0;
    for (int64_t i = first; i < std::min(n_, first + strip_rows_); ++i) {
      if (!(a_[i] > 0 && r_[i] > 0)) continue;
      if (strip.indices.size() < used + m_) {
        strip.indices.resize(2 * used + m_);
        strip.values.resize(2 * used + m_);
      }
      const int64_t count =
          kernels_.emit(costs_.row(i, strip.cost.data()), m_, k_, u_[i], v_.data(), log2_theta, std::log2(r_[i] / double(m_)),
                        log2_column.data(), strip.indices.data() + used, strip.values.data() + used);
      strip.counts[i - first] = count;
      used += count;
    }
  });

  row_begin_.assign(n_ + 1, 0);
  for (int64_t i = 0; i < n_; ++i) row_begin_[i + 1] = row_begin_[i] + strips_[i / strip_rows_].counts[i % strip_rows_];
  const int64_t kept = row_begin_[n_];
  row_index_.resize(kept);
  row_value_.resize(kept);
  column_index_.resize(kept);
  column_value_.resize(kept);
  for (size_t s = 0; s < strips_.size(); ++s) {
    const int64_t begin = row_begin_[s * strip_rows_], end = row_begin_[std::min<int64_t>(n_, (s + 1) * strip_rows_)];
    std::copy_n(strips_[s].indices.begin(), end - begin, row_index_.begin() + begin);
    std::copy_n(strips_[s].values.begin(), end - begin, row_value_.begin() + begin);
  }
  column_begin_.assign(m_ + 1, 0);
  for (const int32_t j : row_index_) ++column_begin_[j + 1];
  for (int64_t j = 0; j < m_; ++j) column_begin_[j + 1] += column_begin_[j];
  std::vector<int64_t> next(column_begin_.begin(), column_begin_.end() - 1);
  for (int64_t i = 0; i < n_; ++i) {
    for (int64_t e = row_begin_[i]; e < row_begin_[i + 1]; ++e) {
      const int64_t at = next[row_index_[e]]++;
      column_index_[at] = int32_t(i);
      column_value_[at] = row_value_[e];
    }
  }
  return kept;
}

// The direction dx, dy; the smaller side's unknowns are kept.
int Machine::solve(double tolerance) {
  const bool by_rows = n_ <= m_;
  Sparse rows{row_begin_.data(), row_index_.data(), row_value_.data(), n_};
  Sparse columns{column_begin_.data(), column_index_.data(), column_value_.data(), m_};
  if (!by_rows) std::swap(rows, columns);
  const std::vector<double>& outer = by_rows ? r_ : c_;
  const std::vector<double>& inner = by_rows ? c_ : r_;
  std::vector<double>& outer_step = by_rows ? dx_ : dy_;
  std::vector<double>& inner_step = by_rows ? dy_ : dx_;
  const std::vector<double>& outer_goal = by_rows ? a_ : b_;
  const std::vector<double>& inner_goal = by_rows ? b_ : a_;

  for (int64_t j = 0; j < columns.rows; ++j) inner_step[j] = inner[j] > 0 ? (inner_goal[j] - inner[j]) / inner[j] : 0;
  rhs_.resize(rows.rows);
  kernels_.multiply(rows, inner_step.data(), 0, rows.rows, rhs_.data());
  for (int64_t i = 0; i < rows.rows; ++i) rhs_[i] = outer_goal[i] - outer[i] - rhs_[i];
  workspace_.resize(5 * rows.rows + columns.rows);
  const bool nothing_dropped = mass_ - total(row_value_) < 1e-13 * mass_;
  constexpr int kMaxSteps = 1000;
  const int steps = kernels_.solve({rows, columns, outer.data(), inner.data(), rhs_.data(), outer_step.data(),
                                    workspace_.data(), tolerance, kMaxSteps, nothing_dropped});
  kernels_.multiply(columns, outer_step.data(), 0, columns.rows, workspace_.data());
  for (int64_t j = 0; j < columns.rows; ++j) inner_step[j] -= inner[j] > 0 ? workspace_[j] / inner[j] : 0;
  return steps;
}

momentum::ot::Step Machine::newton(double theta, double tolerance, bool may_accept) {
  momentum::ot::Step step;
  const double error = l1(r_, a_) + l1(c_, b_);
  step.kept = build(theta);
  step.cg = solve(tolerance);
  const double slope = dot(a_, dx_) - dot(r_, dx_) + dot(b_, dy_) - dot(c_, dy_);
  const double linear = dot(a_, dx_) + dot(b_, dy_);
  if (!(slope > 0) || !may_accept) return step;
  for (double alpha = 1; alpha > 0.005; alpha *= 0.5) {
    for (int64_t i = 0; i < n_; ++i) u1_[i] = u_[i] + alpha * momentum::ot::kLog2e * dx_[i];
    for (int64_t j = 0; j < m_; ++j) v1_[j] = v_[j] + alpha * momentum::ot::kLog2e * dy_[j];
    const double after = evaluate(u1_, v1_, r1_, c1_);
    ++step.evaluations;
    double growth = 0;
    for (int64_t i = 0; i < n_; ++i) growth += r1_[i] - r_[i];
    if (!momentum::ot::accepts(alpha, slope, alpha * linear - growth, error, after, mass_)) continue;
    u_.swap(u1_);
    v_.swap(v1_);
    r_.swap(r1_);
    c_.swap(c1_);
    step.accepted = true;
    step.error = after;
    return step;
  }
  return step;
}

double Machine::sweep_equivalents(const momentum::ot::Step& step) const {
  const double entries = double(n_) * double(m_);
  const double solve = double(step.cg) * (2.0 * double(step.kept) + 4.0 * double(n_ + m_)) + 6.0 * double(step.kept);
  return double(step.evaluations) + 0.4 + solve / entries;
}

double Machine::rounding() const { return 0x1p-54 * (largest_finite(u_) + largest_finite(v_)) * mass_; }

double Machine::value() const {
  double sum = mass_ - total(r_);
  for (int64_t i = 0; i < n_; ++i) sum += a_[i] > 0 ? momentum::ot::kLn2 * a_[i] * (u_[i] - log2_a_[i]) : 0;
  for (int64_t j = 0; j < m_; ++j) sum += b_[j] > 0 ? momentum::ot::kLn2 * b_[j] * (v_[j] - log2_b_[j]) : 0;
  return reg_ * sum;
}

void Machine::potentials(double* f, double* g) const {
  const double unit = reg_ * momentum::ot::kLn2;
  double difference = 0;
  for (int64_t i = 0; i < n_; ++i) {
    f[i] = a_[i] > 0 ? unit * (u_[i] - log2_a_[i]) : 0;
    difference += a_[i] * f[i];
  }
  for (int64_t j = 0; j < m_; ++j) {
    g[j] = b_[j] > 0 ? unit * (v_[j] - log2_b_[j]) : 0;
    difference -= b_[j] * g[j];
  }
  const double shift = difference / (2 * mass_);
  for (int64_t i = 0; i < n_; ++i) f[i] -= a_[i] > 0 ? shift : 0;
  for (int64_t j = 0; j < m_; ++j) g[j] += b_[j] > 0 ? shift : 0;
}

}  // namespace momentum::cpu::ot
