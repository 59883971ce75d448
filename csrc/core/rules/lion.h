// Lion (Chen et al. 2023): u = sign(b1 m + (1 - b1) g),  p -= lr u,  m = b2 m + (1 - b2) g. sign(0) = 0.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Lion {
  static constexpr const char* kName = "lion";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}};
  enum { kBeta1, kBeta2 };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.99, 0.0, 1.0, true, true},
  };

  template <class T>
  struct Constants {
    T beta1, one_minus_beta1, beta2, one_minus_beta2;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]), T(1 - h[kBeta1]), T(h[kBeta2]), T(1 - h[kBeta2])};
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

  // Two products and a sum, not lerp: near zero the sign then agrees with exact arithmetic most often.
  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    const T direction = math::sign(s.c.beta1 * x[0] + s.c.one_minus_beta1 * g);
    x[0] = s.c.beta2 * x[0] + s.c.one_minus_beta2 * g;
    return s.lr * direction;
  }
};

}  // namespace momentum::rules
