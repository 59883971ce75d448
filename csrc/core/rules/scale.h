// SCALE (Glentis et al. 2025): SGD whose direction is normalised per row or per column of the matrix,
//   m = mu m + (1 - mu) g,  d = mix m + (1 - mix) g  where momentum is kept (the last layer), d = g elsewhere
//   s = sqrt(mean of d^2 along the axis) ("rms", the official code) or its l2 norm ("l2", the paper),  p -= lr d / max(s, eps)
// mix is 1 for SCALE, mu for Nesterov's look-ahead, and beta1 / beta2 for Lion-K of the group norm, whose mu is beta2.
// axis 1: one s per row (dim 0), for the (out, in) weights of linear layers; axis 0: one s per column, for embeddings.
// One reduction over d, then the map recomputes d: 16 bytes per float32 element without momentum, 28 with.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Scale {
  static constexpr const char* kName = "scale";
  static constexpr StateInfo kStates[] = {{"exp_avgs", true}};
  enum { kMomentum, kEps, kAxis, kL2, kMix };
  static constexpr HyperInfo kHypers[] = {
      {"momentum", HyperKind::kFloat, 0.9, 0.0, 1.0, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
      {"axis", HyperKind::kInt, 1, 0, 1},
      {"l2", HyperKind::kBool, 0, 0, 1},
      {"mix", HyperKind::kFloat, 1.0, 0.0, 1e300},
  };

  template <class T>
  struct Constants {
    T momentum, one_minus_momentum, eps, mix, one_minus_mix;
    bool per_row, l2;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kMomentum]), T(1 - h[kMomentum]), T(h[kEps]), T(h[kMix]), T(1 - h[kMix]), h[kAxis] != 0, h[kL2] != 0};
  }

  static constexpr int kReductions = 1;
  MOMENTUM_HD static ReduceOp reduce_op(int, const double*) { return ReduceOp::kSum; }
  MOMENTUM_HD static Axis segment_axis(const double* h) { return h[kAxis] != 0 ? Axis::kRow : Axis::kColumn; }

  template <class T>
  struct Scalars {
    T momentum, one_minus_momentum, eps, mix, one_minus_mix, lr, inverse_count;
    bool buffered;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const T count = T(c.per_row ? t.cols : t.rows);
    return {c.momentum,           c.one_minus_momentum, c.eps, c.mix, c.one_minus_mix, t.lr, c.l2 ? T(1) : T(1) / count,
            (t.present & 1u) != 0};
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
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T total) {
    const T d = direction(s, g, x);
    x[0] = s.buffered ? average(s, g, x) : x[0];
    return d * (s.lr / math::max(math::sqrt(total * s.inverse_count), s.eps));
  }
};

}  // namespace momentum::rules
