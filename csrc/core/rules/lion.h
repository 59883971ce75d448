// Lion (Chen et al. 2023) and the element-wise Lion-K (Chen et al. 2024, "Lion Secretly Solves Constrained Optimization"):
//   u = grad K(b1 m + (1 - b1) g),  p -= lr u,  m = b2 m + (1 - b2) g
// with K the l1 norm (sign, sign(0) = 0), sum of max(|x| - e, 0) (sign beyond the threshold e, 0 below), or the Huber function
// of e, which is the l1 norm with its kink rounded off (clip(x, -e, e) / e). All three are the sign beyond e and a line below.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Lion {
  static constexpr const char* kName = "lion";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}};
  enum { kBeta1, kBeta2, kThreshold, kHuber };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.99, 0.0, 1.0, true, true},
      {"threshold", HyperKind::kFloat, 0.0, 0.0, 1e300},
      {"huber", HyperKind::kBool, 0, 0, 1},  // below the threshold: the line x / threshold, not 0
  };

  template <class T>
  struct Constants {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, threshold, slope;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    const bool line = h[kHuber] != 0 && h[kThreshold] > 0;
    return {T(h[kBeta1]),     T(1 - h[kBeta1]), T(h[kBeta2]),
            T(1 - h[kBeta2]), T(h[kThreshold]), line ? T(1 / h[kThreshold]) : T(0)};
  }

  template <class T>
  struct Scalars {
    Constants<T> c;
    T lr;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    return {c, t.lr};
  }

  // Two products and a sum, not lerp: near zero the sign then agrees with exact arithmetic most often. NaN takes the line.
  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    const V mixed = s.c.beta1 * x[0] + s.c.one_minus_beta1 * g;
    const V direction = math::abs(mixed) > s.c.threshold ? math::copysign(V{} + T(1), mixed) : s.c.slope * mixed;
    x[0] = s.c.beta2 * x[0] + s.c.one_minus_beta2 * g;
    return s.lr * direction;
  }
};

}  // namespace momentum::rules
