// diffGrad (Dubey et al. 2020), as diffGrad_v2.py: Adam with less friction where the gradient stays the same,
//   m, v as in Adam,  f = 1 / (1 + exp(-|g_prev - g|)) in [1/2, 1)
//   p -= lr sqrt(1 - b2^t) / (1 - b1^t) * f m / (sqrt(v) + eps)
// eps is beside the uncorrected root.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Diffgrad {
  static constexpr const char* kName = "diffgrad";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_sqs"}, {"previous_grads"}};
  enum { kBeta1, kBeta2, kEps };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
  };

  template <class T>
  struct Constants {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, log_beta1, log_beta2, eps;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]), T(h[kBeta2]), T(1 - h[kBeta1]), T(1 - h[kBeta2]), T(math::log(h[kBeta1])), T(math::log(h[kBeta2])),
            T(h[kEps])};
  }

  template <class T>
  struct Scalars {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T correction1 = math::one_minus_power(c.log_beta1, t.step);
    const T correction2 = math::one_minus_power(c.log_beta2, t.step);
    return {c.beta1, c.beta2, c.one_minus_beta1, c.one_minus_beta2, c.eps, t.lr * math::sqrt(correction2) / correction1};
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    const T friction = T(1) / (T(1) + math::exp_of_negative(-math::abs(x[2] - g)));
    x[0] = s.beta1 * x[0] + s.one_minus_beta1 * g;
    x[1] = s.beta2 * x[1] + s.one_minus_beta2 * g * g;
    x[2] = g;
    return s.step_size * friction * x[0] / (math::sqrt(x[1]) + s.eps);
  }
};

}  // namespace momentum::rules
