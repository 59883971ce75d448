// The part of an update that leaves the norm of its weights alone (Heo et al. 2021, AdamP and SGDP). A parameter of two or more
// dimensions is seen as rows (dim 0 x the rest) and, where that does not do, as one row. A view does where every row's gradient
// is nearly perpendicular to its weights, as it is of weights that something normalises:
//   |<g, p>| / (max(||g||, eps) max(||p||, eps)) < delta / sqrt(length)
// and then u = u - q <q, u>, q = p / (||p|| + eps), row by row, and weight decay is multiplied by wd_ratio.
// Four sums per row decide, and their sums serve the other view.
#pragma once

#include "core/config.h"
#include "core/math.h"
#include "core/rule.h"

namespace momentum::projection {

// Per row; per tensor, what its rows add up to; and what is read of that.
enum { kGradParam, kGradGrad, kParamParam, kParamUpdate, kProducts };
enum { kCount = kProducts, kOthers, kSums };  // elements, rows that are not nearly perpendicular
enum { kView, kCoefficient };

enum View { kNone, kRows, kTensor };

struct Limits {
  double delta, eps;
};

MOMENTUM_HD double larger(double a, double b) { return a > b || a != a ? a : b; }

MOMENTUM_HD bool is_perpendicular(const Limits& c, const double* of_row, double length) {
  const double product = of_row[kGradParam] < 0 ? -of_row[kGradParam] : of_row[kGradParam];
  const double sizes = larger(math::sqrt(of_row[kGradGrad]), c.eps) * larger(math::sqrt(of_row[kParamParam]), c.eps);
  return product / sizes < c.delta / math::sqrt(length);  // not where anything is NaN
}

MOMENTUM_HD void summarize(const Limits& c, int64_t length, const double* of_row, double* out) {
  for (int j = 0; j < kProducts; ++j) out[j] = of_row[j];
  out[kCount] = double(length);
  out[kOthers] = is_perpendicular(c, of_row, double(length)) ? 0.0 : 1.0;
}

// <q, u> / (||p|| + eps), which times p is taken from u.
template <class T>
MOMENTUM_HD T coefficient(T param_update, T param_param, T eps) {
  const T norm = math::sqrt(param_param) + eps;
  return param_update / (norm * norm);
}

// A tensor without rows has no view: its sums, which nobody reads, stay 0.
MOMENTUM_HD void settle(const Limits& c, int64_t rows, double* sums) {
  if (rows == 0) return;
  const View view = sums[kOthers] == 0 ? kRows : is_perpendicular(c, sums, sums[kCount]) ? kTensor : kNone;
  const double whole = coefficient(sums[kParamUpdate], sums[kParamParam], c.eps);
  sums[kView] = double(view);
  sums[kCoefficient] = view == kTensor ? whole : 0.0;
}

// What `prepare` keeps of it.
template <class T>
struct Settled {
  View view;
  T coefficient, eps;
};

template <class T, class Context>
MOMENTUM_HD Settled<T> settled(const Limits& c, const Context& t) {
  if (t.sums == nullptr || t.rows == 0) return {kNone, T(0), T(c.eps)};
  return {View(int(t.sums[kView])), T(t.sums[kCoefficient]), T(c.eps)};
}

template <class T>
MOMENTUM_HD T segment_value(const Settled<T>& s, const double* of_row) {
  if (s.view != kRows) return s.coefficient;
  return coefficient(T(of_row[kParamUpdate]), T(of_row[kParamParam]), s.eps);
}

template <class V, class Wide>
MOMENTUM_HD void products(V g, V p, V u, Wide* out) {
  const Wide grad = math::wide(g), param = math::wide(p);
  out[kGradParam] = grad * param;
  out[kGradGrad] = grad * grad;
  out[kParamParam] = param * param;
  out[kParamUpdate] = param * math::wide(u);
}

// What rules with a projection have in common: their `Constants` hold `limits`, their `Scalars` `projected` and `decay_scale`.
struct Rule {
  static constexpr int kProducts = projection::kProducts, kSums = projection::kSums;
  static constexpr bool kReductionReadsParam = true, kMatrices = true;
  MOMENTUM_HD static Axis segment_axis(const double*) { return Axis::kRow; }

  template <class T, class Constants>
  MOMENTUM_HD static void summarize(const Constants& c, const TensorContext<T>& t, const double* of_row, double* out) {
    projection::summarize(c.limits, t.cols, of_row, out);
  }
  template <class T, class Constants>
  MOMENTUM_HD static void settle(const Constants& c, const TensorContext<T>& t, double* sums) {
    projection::settle(c.limits, t.rows, sums);
  }
  template <class T, class Scalars>
  MOMENTUM_HD static T segment_value(const Scalars& s, const double* of_row) {
    return projection::segment_value(s.projected, of_row);
  }
  template <class Scalars>
  MOMENTUM_HD static auto decay_scale(const Scalars& s) {
    return s.decay_scale;
  }
};

}  // namespace momentum::projection
