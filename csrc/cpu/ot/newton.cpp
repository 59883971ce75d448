// The sparse Newton step on the CPU: threshold to compressed lists, direction, line search.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/ot/machine.h"

namespace momentum::cpu::ot {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) total += x[i] * y[i];
  return total;
}

double largest_where(const std::vector<double>& marginal, const std::vector<double>& x) {
  double largest = -kInf;
  for (size_t i = 0; i < x.size(); ++i) {
    if (marginal[i] > 0) largest = std::max(largest, x[i]);
  }
  return largest;
}

}  // namespace

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
  const double error = l1(r_, a_.data()) + l1(c_, b_.data());
  step.kept = build(theta);
  step.cg = solve(tolerance);
  const double slope = dot(a_, dx_) - dot(r_, dx_) + dot(b_, dy_) - dot(c_, dy_);
  const double linear = dot(a_, dx_) + dot(b_, dy_);
  if (!(slope > 0) || !may_accept) return step;
  const double growth = largest_where(a_, dx_) + largest_where(b_, dy_);
  for (int first = 0, count = 1; first < momentum::ot::kLengths; first += count, count = kTried) {
    for (int q = 0; q < count; ++q) {
      const double alpha = momentum::ot::step_length(first + q, growth) * momentum::ot::kLog2e;
      for (int64_t i = 0; i < n_; ++i) u1_[q * n_ + i] = u_[i] + alpha * dx_[i];
      for (int64_t j = 0; j < m_; ++j) v1_[q * m_ + j] = v_[j] + alpha * dy_[j];
    }
    evaluate(count, u1_.data(), v1_.data(), r1_.data(), c1_.data());
    ++step.reads;
    step.points += count;
    for (int q = 0; q < count; ++q) {
      const double alpha = momentum::ot::step_length(first + q, growth);
      const double *r = r1_.data() + q * n_, *c = c1_.data() + q * m_;
      const double after = l1(a_, r) + l1(b_, c);
      double gained = 0;
      for (int64_t i = 0; i < n_; ++i) gained += r[i] - r_[i];
      if (!momentum::ot::accepts(alpha, slope, alpha * linear - gained, error, after, mass_)) continue;
      std::copy_n(u1_.data() + q * n_, n_, u_.data());
      std::copy_n(v1_.data() + q * m_, m_, v_.data());
      std::copy_n(r, n_, r_.data());
      std::copy_n(c, m_, c_.data());
      step.accepted = true;
      step.error = after;
      return step;
    }
  }
  return step;
}

double Machine::sweep_equivalents(const momentum::ot::Step& step) const {
  const double entries = double(n_) * double(m_);
  const double solve = double(step.cg) * (2.0 * double(step.kept) + 4.0 * double(n_ + m_)) + 6.0 * double(step.kept);
  return double(step.points) + 0.4 + solve / entries;
}

}  // namespace momentum::cpu::ot
