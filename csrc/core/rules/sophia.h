// Sophia (Liu et al. 2023): a momentum divided by an estimate of the Hessian's diagonal, element by element, and clipped,
//   m = b1 m + (1 - b1) g,  p -= lr clip(m / denom, -clip, clip),  denom = scale h + eps (Sophia-G), max(scale h, eps)
//   (Sophia-H)
// The estimate h is another op's to update (hessian_ema.h); here it is read, and stored as it was.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Sophia {
  static constexpr const char* kName = "sophia";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"hessians"}};
  enum { kBeta1, kScale, kClip, kEps, kFloor };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.965, 0.0, 1.0, true, true},
      {"scale", HyperKind::kFloat, 1.0, 0.0, 1e300},
      {"clip", HyperKind::kFloat, 1.0, 0.0, 1e300},
      {"eps", HyperKind::kFloat, 1e-15, 0.0, 1e300},
      {"floor", HyperKind::kBool, 0, 0, 1},  // eps bounds the denominator from below; otherwise it is added
  };

  template <class T>
  struct Constants {
    T beta1, one_minus_beta1, scale, clip, least, added;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    const bool floor = h[kFloor] != 0;
    return {T(h[kBeta1]), T(1 - h[kBeta1]), T(h[kScale]), T(h[kClip]), floor ? T(h[kEps]) : T(0), floor ? T(0) : T(h[kEps])};
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

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    x[0] = s.c.beta1 * x[0] + s.c.one_minus_beta1 * g;
    const T ratio = x[0] / (math::max(s.c.scale * x[1], s.c.least) + s.c.added);
    return s.lr * (math::abs(ratio) > s.c.clip ? math::copysign(s.c.clip, ratio) : ratio);
  }
};

}  // namespace momentum::rules
