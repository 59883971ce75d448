// SGD with momentum (Sutskever et al. 2013, in torch's form):
//   buf = mu buf + (1 - dampening) g   (buf = g at the first step),  d = g + mu buf if nesterov else buf,  p -= lr d
// Without a momentum buffer d = g.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Sgd {
  static constexpr const char* kName = "sgd";
  static constexpr StateInfo kStates[] = {{"momentum_buffers", true}};
  enum { kMomentum, kDampening, kNesterov };
  static constexpr HyperInfo kHypers[] = {
      {"momentum", HyperKind::kFloat, 0.0, 0.0, 1e300},
      {"dampening", HyperKind::kFloat, 0.0, -1e300, 1e300},
      {"nesterov", HyperKind::kBool, 0.0, 0.0, 1.0},
  };

  template <class T>
  struct Constants {
    T momentum, one_minus_dampening;
    bool nesterov;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kMomentum]), T(1 - h[kDampening]), h[kNesterov] != 0};
  }

  template <class T>
  struct Scalars {
    T momentum, one_minus_dampening, lr;
    bool buffered, first, nesterov;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    return {c.momentum, c.one_minus_dampening, t.lr, (t.present & 1u) != 0, t.step <= T(1), c.nesterov};
  }

  template <class T>
  MOMENTUM_HD static bool fresh(const Scalars<T>& s) {
    return s.first;
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    const V buffer = s.first ? g : s.momentum * x[0] + s.one_minus_dampening * g;
    x[0] = s.buffered ? buffer : x[0];
    const V direction = s.nesterov ? g + s.momentum * buffer : buffer;
    return s.lr * (s.buffered ? direction : g);
  }
};

}  // namespace momentum::rules
