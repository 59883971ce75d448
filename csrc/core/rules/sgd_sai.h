// SGD-SaI (Xu et al. 2024): SGD with momentum and a learning rate of its own for every tensor, fixed before the first step,
//   m = mu m + (1 - mu) g  (m = g at the first step),  p -= lr s m
// s is the persistent scalar of the tensor: the signal-to-noise ratio of its first gradient. Who makes the state measures it.
#pragma once

#include "core/rule.h"

namespace momentum::rules {

struct SgdSai {
  static constexpr const char* kName = "sgd_sai";
  static constexpr StateInfo kStates[] = {{"momentum_buffers"}};
  static constexpr int kScalars = 1;
  enum { kMomentum };
  static constexpr HyperInfo kHypers[] = {{"momentum", HyperKind::kFloat, 0.9, 0.0, 1.0, true}};

  template <class T>
  struct Constants {
    T momentum, one_minus_momentum;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kMomentum]), T(1 - h[kMomentum])};
  }

  template <class T>
  struct Scalars {
    T momentum, one_minus_momentum, step_size;
    bool first;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    return {c.momentum, c.one_minus_momentum, t.lr * T(t.scalars[0]), t.step <= T(1)};
  }

  template <class T>
  MOMENTUM_HD static bool fresh(const Scalars<T>& s) {
    return s.first;
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    x[0] = s.first ? g : s.momentum * x[0] + s.one_minus_momentum * g;
    return s.step_size * x[0];
  }
};

}  // namespace momentum::rules
