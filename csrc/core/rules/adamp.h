// AdamP (Heo et al. 2021): Adam whose update keeps the norm of weights that something normalises (core/projection.h),
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  d = m, or b1 m + (1 - b1) g with Nesterov's look-ahead
//   u = d / (sqrt(v) / sqrt(1 - b2^t) + eps),  u = u - c p,  p -= lr / (1 - b1^t) u
// One pass makes the sums that c is made of, then the map recomputes u: 44 bytes per float32 element.
#pragma once

#include "core/math.h"
#include "core/projection.h"
#include "core/rule.h"

namespace momentum::rules {

struct Adamp : projection::Rule {
  static constexpr const char* kName = "adamp";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_sqs"}};
  enum { kBeta1, kBeta2, kEps, kDelta, kWdRatio, kNesterov };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
      {"delta", HyperKind::kFloat, 0.1, 0.0, 1e300},
      {"wd_ratio", HyperKind::kFloat, 0.1, 0.0, 1e300},
      {"nesterov", HyperKind::kBool, 0, 0, 1},
  };

  template <class T>
  struct Constants {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, log_beta1, log_beta2, eps, wd_ratio;
    projection::Limits limits;
    bool nesterov;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {
        T(h[kBeta1]), T(h[kBeta2]),   T(1 - h[kBeta1]),     T(1 - h[kBeta2]), T(math::log(h[kBeta1])), T(math::log(h[kBeta2])),
        T(h[kEps]),   T(h[kWdRatio]), {h[kDelta], h[kEps]}, h[kNesterov] != 0};
  }

  template <class T>
  struct Scalars {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size, inverse_root, decay_scale;
    projection::Settled<T> projected;
    bool nesterov;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T correction1 = math::one_minus_power(c.log_beta1, t.step);
    const T correction2 = math::one_minus_power(c.log_beta2, t.step);
    const auto projected = projection::settled<T>(c.limits, t);
    return {c.beta1,
            c.beta2,
            c.one_minus_beta1,
            c.one_minus_beta2,
            c.eps,
            t.lr / correction1,
            T(1) / math::sqrt(correction2),
            projected.view == projection::kNone ? T(1) : c.wd_ratio,
            projected,
            c.nesterov};
  }
  template <class T, class V>
  MOMENTUM_HD static V direction(const Scalars<T>& s, V g, const V* x, V* m, V* v) {
    *m = s.beta1 * x[0] + s.one_minus_beta1 * g;
    *v = s.beta2 * x[1] + s.one_minus_beta2 * g * g;
    const V ahead = s.nesterov ? s.beta1 * *m + s.one_minus_beta1 * g : *m;
    return ahead / (math::sqrt(*v) * s.inverse_root + s.eps);
  }

  template <class T, class V, class Wide>
  MOMENTUM_HD static void products(const Scalars<T>& s, V g, V p, const V* x, Wide* out) {
    V m, v;
    projection::products(g, p, direction(s, g, x, &m, &v), out);
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T p, T* x, T coefficient) {
    const T u = direction(s, g, x, &x[0], &x[1]);
    return s.step_size * (u - coefficient * p);
  }
};

}  // namespace momentum::rules
