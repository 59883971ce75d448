// AdaBelief (Zhuang et al. 2020), as adabelief_pytorch 0.2.1:
//   m = b1 m + (1 - b1) g,  s = b2 s + (1 - b2) (g - m)^2 + eps,  smax = max(smax, s)
//   p -= lr / (1 - b1^t) * m / (sqrt(s or smax) / sqrt(1 - b2^t) + eps)
// and with `rectify`, where the variance of the step is known to be finite (rho >= 5),
//   p -= lr r sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(s) + eps),  r^2 = (rho - 4) (rho - 2) R / ((R - 4) (R - 2) rho)
// and before that either plain momentum, p -= lr / (1 - b1^t) m, or no step at all. Here R = 2 / (1 - b2) - 1 and
// rho = R - 2 t b2^t / (1 - b2^t). eps is part of the stored s: it adds up, as in the published code.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Adabelief {
  static constexpr const char* kName = "adabelief";
  static constexpr bool kManyRegisters = true;
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_vars"}, {"max_exp_avg_vars", true}};
  enum { kBeta1, kBeta2, kEps, kRectify, kDegenerate };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true}, {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-16, 0.0, 1e300},           {"rectify", HyperKind::kBool, 1, 0, 1},
      {"degenerated_to_sgd", HyperKind::kBool, 1, 0, 1},
  };

  template <class T>
  struct Constants {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, log_beta1, log_beta2, eps;
    T half_rate, most;  // -log(b2) / 2 and R
    bool rectify, degenerate;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]),
            T(h[kBeta2]),
            T(1 - h[kBeta1]),
            T(1 - h[kBeta2]),
            T(math::log(h[kBeta1])),
            T(math::log(h[kBeta2])),
            T(h[kEps]),
            T(-math::log(h[kBeta2]) / 2),
            T((1 + h[kBeta2]) / (1 - h[kBeta2])),
            h[kRectify] != 0,
            h[kDegenerate] != 0};
  }

  // rho of step t. The terms of its definition cancel while t is small against R; with R = coth(d / 2), d = -log(b2), it is
  // t (1 - L(t d / 2)) + L(d / 2), L Langevin's function coth(x) - 1 / x.
  template <class T>
  MOMENTUM_HD static T effective_length(const Constants<T>& c, T step) {
    return step * math::one_minus_langevin(step * c.half_rate) + (T(1) - math::one_minus_langevin(c.half_rate));
  }

  template <class T>
  struct Scalars {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size, inverse_root;
    bool rectify, plain;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T correction1 = math::one_minus_power(c.log_beta1, t.step);
    const T correction2 = math::one_minus_power(c.log_beta2, t.step);
    Scalars<T> s{
        c.beta1,   c.beta2, c.one_minus_beta1, c.one_minus_beta2, c.eps, t.lr / correction1, T(1) / math::sqrt(correction2),
        c.rectify, false};
    if (c.rectify) {
      const T rho = c.beta2 > T(0) ? effective_length(c, t.step) : T(1);
      if (rho >= T(5)) {
        const T share = (rho - T(4)) / (c.most - T(4)) * ((rho - T(2)) / (c.most - T(2))) * (c.most / rho);
        s.step_size *= math::sqrt(correction2 * share);
        s.inverse_root = T(1);
      } else {
        s.plain = true;
        s.step_size = c.degenerate ? s.step_size : T(0);
      }
    }
    return s;
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    x[0] = s.beta1 * x[0] + s.one_minus_beta1 * g;
    const V surprise = g - x[0];
    x[1] = s.beta2 * x[1] + s.one_minus_beta2 * surprise * surprise + s.eps;
    x[2] = math::max(x[2], x[1]);  // x[1] where no maximum is kept: absent states read as 0
    const V second = s.rectify ? x[1] : x[2];
    const V denom = s.plain ? V{} + T(1) : math::sqrt(second) * s.inverse_root + s.eps;
    return s.step_size * x[0] / denom;
  }
};

}  // namespace momentum::rules
