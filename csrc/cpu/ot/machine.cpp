#include "cpu/ot/machine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

namespace momentum::cpu::ot {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int64_t kStripEntries = 32768;  // entries of the cost worth a strip of their own
constexpr int64_t kMaxStrips = 32;
// Sums outside are made again from their largest term: entries below 2^-1022 are 0, and may have been part of them.
constexpr double kSmallestSum = 1e-200, kLargestSum = 1e200;

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
    strip.column.resize(kTried * m_);
    strip.p.resize(kTogether * m_);
    strip.cost.resize(costs_.of_points() ? m_ : 0);
  }
  for (auto* rows : {&u_, &r_, &dx_, &rise_, &log2_a_}) rows->resize(n_);
  for (auto* columns : {&v_, &c_, &dy_, &log2_b_}) columns->resize(m_);
  for (auto* rows : {&u1_, &r1_}) rows->resize(kTried * n_);
  for (auto* columns : {&v1_, &c1_}) columns->resize(kTried * m_);
}

// body(strip, row number, row) for every row that has mass; `columns` numbers of the strip begin at 0.
template <class Body>
void Machine::for_rows(int64_t columns, Body&& body) {
  for_strips([&](int64_t s) {
    Strip& strip = strips_[s];
    std::fill_n(strip.column.begin(), columns, 0.0);
    for (int64_t i = s * strip_rows_; i < std::min(n_, (s + 1) * strip_rows_); ++i) {
      if (a_[i] > 0) body(strip, i, costs_.row(i, strip.cost.data()));
    }
  });
}

void Machine::add_columns(int64_t count, double* columns) {
  std::fill_n(columns, count, 0.0);
  const double one = 1;
  for (const Strip& strip : strips_) kernels_.add(count, 1, &one, strip.column.data(), columns);
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
  std::vector<char> invalid(n_, 0), forbidden(n_, 0);
  for_rows(m_, [&](Strip& strip, int64_t i, Row row) {
    const RowScan found = kernels_.scan(row, m_, log2_b_.data());
    low[i] = found.low;
    high[i] = found.high;
    invalid[i] = found.invalid;
    forbidden[i] = found.forbidden;
    // At k = 0 a finite entry counts 1, an infinite one is NaN and counts 0: columns that no row reaches stay at 0.
    kernels_.exponentials(row, m_, 0.0, 0.0, support.data(), strip.p.data());
    const double one = 1;
    kernels_.add(m_, 1, &one, strip.p.data(), strip.column.data());
  });
  add_columns(m_, c_.data());
  for (int64_t j = 0; j < m_; ++j) result.infeasible |= b_[j] > 0 && c_[j] == 0;
  result.cost_min = kInf;
  result.cost_max = -kInf;
  for (int64_t i = 0; i < n_; ++i) {
    if (!(a_[i] > 0)) continue;
    result.invalid |= invalid[i] != 0;
    result.forbidden |= forbidden[i] != 0;
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

void Machine::add_rows(Strip& strip) {
  kernels_.add(m_, strip.waiting, strip.scale, strip.p.data(), strip.column.data());
  strip.waiting = 0;
}

double Machine::sweep() {
  if (!fresh_) update_columns();
  for_rows(m_, [&](Strip& strip, int64_t i, Row row) {
    const double before = u_[i];
    double* p = strip.p.data() + strip.waiting * m_;
    double sum = kernels_.exponentials(row, m_, k_, u_[i], v_.data(), p);
    if (!(sum > kSmallestSum && sum < kLargestSum)) {
      u_[i] = -kernels_.maximum(row, m_, k_, v_.data());
      sum = kernels_.exponentials(row, m_, k_, u_[i], v_.data(), p);
    }
    u_[i] += std::log2(a_[i] / sum);
    rise_[i] = u_[i] - before;
    strip.scale[strip.waiting++] = a_[i] / sum;
    if (strip.waiting == kTogether) add_rows(strip);
  });
  for_strips([&](int64_t s) { add_rows(strips_[s]); });
  add_columns(m_, c_.data());
  r_ = a_;
  fresh_ = false;
  return l1(c_, b_.data());
}

void Machine::evaluate(int count, const double* u, const double* v, double* rows, double* columns) {
  std::fill_n(rows, count * n_, 0.0);
  for_rows(count * m_, [&](Strip& strip, int64_t i, Row row) {
    double at[kTried], sums[kTried];
    for (int q = 0; q < count; ++q) at[q] = u[q * n_ + i];
    kernels_.sums(row, m_, k_, count, at, v, sums, strip.column.data());
    for (int q = 0; q < count; ++q) rows[q * n_ + i] = sums[q];
  });
  add_columns(count * m_, columns);
}

double Machine::verify() {
  evaluate(1, u_.data(), v_.data(), r_.data(), c_.data());
  fresh_ = false;
  return l1(r_, a_.data()) + l1(c_, b_.data());
}

// With S the rows whose `order` is at least t, N(S) is the columns where the largest order of the rows that reach them is: one
// walk down the sorted numbers gives a(S) - b(N(S)) for every t.
double Machine::shortage_of(const std::vector<double>& order) {
  std::vector<double> support(m_);
  for (int64_t j = 0; j < m_; ++j) support[j] = b_[j] > 0 ? 0.0 : -kInf;
  for_strips([&](int64_t s) {
    Strip& strip = strips_[s];
    std::fill_n(strip.column.begin(), m_, -kInf);
    for (int64_t i = s * strip_rows_; i < std::min(n_, (s + 1) * strip_rows_); ++i) {
      if (!(a_[i] > 0)) continue;
      kernels_.exponentials(costs_.row(i, strip.cost.data()), m_, 0.0, 0.0, support.data(), strip.p.data());
      for (int64_t j = 0; j < m_; ++j) {
        if (strip.p[j] > 0 && strip.column[j] < order[i]) strip.column[j] = order[i];
      }
    }
  });
  std::vector<std::pair<double, double>> masses;  // those of rows count up, those of columns down
  for (int64_t i = 0; i < n_; ++i) {
    if (a_[i] > 0) masses.emplace_back(order[i], a_[i]);
  }
  for (int64_t j = 0; j < m_; ++j) {
    double top = -kInf;
    for (const Strip& strip : strips_) top = std::max(top, strip.column[j]);
    if (b_[j] > 0) masses.emplace_back(top, -b_[j]);
  }
  std::sort(masses.begin(), masses.end(), std::greater<>());
  double excess = 0, largest = 0;
  for (size_t at = 0; at < masses.size(); ++at) {
    excess += masses[at].second;
    const bool complete = at + 1 == masses.size() || masses[at + 1].first < masses[at].first;
    if (complete) largest = std::max(largest, excess);
  }
  return largest - momentum::ot::sums_rounding(n_ + m_) * mass_;
}

double Machine::shortage() { return std::max(shortage_of(rise_), shortage_of(u_)); }

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
