// Adam and AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019), optionally with AMSGrad:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  vmax = max(vmax, v)
//   p -= lr / (1 - b1^t) * m / (sqrt(v or vmax) / sqrt(1 - b2^t) + eps)
// The two optimizers differ only in the weight decay of the frame. eps is outside the bias-corrected root, as in torch.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Adam {
  static constexpr const char* kName = "adam";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_sqs"}, {"max_exp_avg_sqs", true}};
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
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size, inverse_root;
    bool amsgrad;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T correction1 = math::one_minus_power(c.log_beta1, t.step);
    const T correction2 = math::one_minus_power(c.log_beta2, t.step);
    return {c.beta1,
            c.beta2,
            c.one_minus_beta1,
            c.one_minus_beta2,
            c.eps,
            t.lr / correction1,
            T(1) / math::sqrt(correction2),
            (t.present & 4u) != 0};
  }

  template <class T>
  MOMENTUM_HD static Moments<T> moments(const Scalars<T>& s) {
    return {{s.beta1, s.beta2}, {s.one_minus_beta1, s.one_minus_beta2}, s.step_size, s.inverse_root, s.eps, !s.amsgrad};
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    x[0] = s.beta1 * x[0] + s.one_minus_beta1 * g;
    x[1] = s.beta2 * x[1] + s.one_minus_beta2 * g * g;
    x[2] = s.amsgrad ? math::max(x[2], x[1]) : x[2];
    const V second = s.amsgrad ? x[2] : x[1];
    return s.step_size * x[0] / (math::sqrt(second) * s.inverse_root + s.eps);
  }
};

}  // namespace momentum::rules
