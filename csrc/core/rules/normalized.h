// Momentum divided by its l2 norm, tensor by tensor (Cutkosky & Mehta 2020):
//   m = mu m + (1 - mu) g,  d = mix m + (1 - mix) g,  p -= lr d / max(||d||, eps);  d = g where no momentum is kept
// mix is 1 for normalised momentum, mu for Nesterov's look-ahead, and beta1 / beta2 for Lion-K of the l2 norm, whose mu is
// beta2. The norm of rows or columns is scale.h's. One reduction over d, then the map recomputes d: 28 bytes per float32
// element.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Normalized {
  static constexpr const char* kName = "normalized";
  static constexpr StateInfo kStates[] = {{"exp_avgs", true}};
  enum { kMomentum, kEps, kMix };
  static constexpr HyperInfo kHypers[] = {
      {"momentum", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-12, 0.0, 1e300},
      {"mix", HyperKind::kFloat, 1.0, 0.0, 1e300},
  };

  template <class T>
  struct Constants {
    T momentum, one_minus_momentum, eps, mix, one_minus_mix;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kMomentum]), T(1 - h[kMomentum]), T(h[kEps]), T(h[kMix]), T(1 - h[kMix])};
  }

  static constexpr int kReductions = 1;
  MOMENTUM_HD static ReduceOp reduce_op(int, const double*) { return ReduceOp::kSum; }

  template <class T>
  struct Scalars {
    T momentum, one_minus_momentum, mix, one_minus_mix, step_size;
    bool buffered;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T norm = T(math::sqrt(t.totals[0]));
    return {c.momentum, c.one_minus_momentum, c.mix, c.one_minus_mix, t.lr / math::max(norm, c.eps), (t.present & 1u) != 0};
  }

  template <class T, class V>
  MOMENTUM_HD static V average(const Scalars<T>& s, V g, const V* x) {
    return s.momentum * x[0] + s.one_minus_momentum * g;
  }

  template <class T, class V>
  MOMENTUM_HD static V direction(const Scalars<T>& s, V g, const V* x) {
    return s.buffered ? s.mix * average(s, g, x) + s.one_minus_mix * g : g;
  }

  template <class T, class V>
  MOMENTUM_HD static V measure(int, const Scalars<T>& s, V g, V, const V* x) {
    const V d = direction(s, g, x);
    return d * d;
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    const T d = direction(s, g, x);
    x[0] = s.buffered ? average(s, g, x) : x[0];
    return s.step_size * d;
  }
};

}  // namespace momentum::rules
