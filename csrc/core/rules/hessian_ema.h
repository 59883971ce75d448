// The moving average of an estimate of the Hessian's diagonal, which Sophia divides by. The average is the op's parameter:
//   h = (1 - lr) h + lr scale g z
// with lr = 1 - beta2 and decoupled weight decay 1. g is a Hessian-vector product and z the vector (Hutchinson's estimate), or,
// without z, both are the gradient at labels drawn from the model (Gauss-Newton-Bartlett; `scale` may be the batch size).
#pragma once

#include "core/rule.h"

namespace momentum::rules {

struct HessianEma {
  static constexpr const char* kName = "hessian_ema";
  static constexpr StateInfo kStates[] = {{"probes", true}};
  enum { kScale };
  static constexpr HyperInfo kHypers[] = {{"scale", HyperKind::kFloat, 1.0, 0.0, 1e300}};

  template <class T>
  struct Constants {
    T scale;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kScale])};
  }

  template <class T>
  struct Scalars {
    T weight;
    bool probed;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    return {-t.lr * c.scale, (t.present & 1u) != 0};
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    return s.weight * g * (s.probed ? x[0] : g);
  }
};

}  // namespace momentum::rules
