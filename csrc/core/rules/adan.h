// Adan (Xie et al. 2022), as the Python path of sail-sg/Adan: with d the change of the gradient, 0 at the first step,
//   m = b1 m + (1 - b1) g,  z = b2 z + (1 - b2) d,  n = b3 n + (1 - b3) (g + b2 d)^2
//   p -= lr (m / (1 - b1^t) + b2 z / (1 - b2^t)) / (sqrt(n) / sqrt(1 - b3^t) + eps)
// The last state holds -g of the previous step, as published; the kernel writes it. One pass, 44 bytes per float32 element.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Adan {
  static constexpr const char* kName = "adan";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_diffs"}, {"exp_avg_sqs"}, {"neg_pre_grads"}};
  enum { kBeta1, kBeta2, kBeta3, kEps };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.98, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.92, 0.0, 1.0, true, true},
      {"beta3", HyperKind::kFloat, 0.99, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
  };

  template <class T>
  struct Constants {
    T beta1, beta2, beta3, one_minus_beta1, one_minus_beta2, one_minus_beta3, log_beta1, log_beta2, log_beta3, eps;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]),
            T(h[kBeta2]),
            T(h[kBeta3]),
            T(1 - h[kBeta1]),
            T(1 - h[kBeta2]),
            T(1 - h[kBeta3]),
            T(math::log(h[kBeta1])),
            T(math::log(h[kBeta2])),
            T(math::log(h[kBeta3])),
            T(h[kEps])};
  }

  template <class T>
  struct Scalars {
    T beta1, beta2, beta3, one_minus_beta1, one_minus_beta2, one_minus_beta3, eps;
    T step_size, diff_size, inverse_root;
    bool first;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    return {c.beta1,
            c.beta2,
            c.beta3,
            c.one_minus_beta1,
            c.one_minus_beta2,
            c.one_minus_beta3,
            c.eps,
            t.lr / math::one_minus_power(c.log_beta1, t.step),
            t.lr * c.beta2 / math::one_minus_power(c.log_beta2, t.step),
            T(1) / math::sqrt(math::one_minus_power(c.log_beta3, t.step)),
            t.step <= T(1)};
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    const V change = s.first ? g - g : g + x[3];  // NaN and Inf make the change NaN in either case
    const V ahead = g + s.beta2 * change;
    x[0] = s.beta1 * x[0] + s.one_minus_beta1 * g;
    x[1] = s.beta2 * x[1] + s.one_minus_beta2 * change;
    x[2] = s.beta3 * x[2] + s.one_minus_beta3 * ahead * ahead;
    x[3] = -g;
    return (s.step_size * x[0] + s.diff_size * x[1]) / (math::sqrt(x[2]) * s.inverse_root + s.eps);
  }
};

}  // namespace momentum::rules
