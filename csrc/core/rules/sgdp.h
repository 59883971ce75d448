// SGDP (Heo et al. 2021): SGD whose update keeps the norm of weights that something normalises (core/projection.h),
//   buf = mu buf + (1 - dampening) g,  u = g + mu buf if nesterov else buf,  u = u - c p,  p -= lr u
// Weight decay is divided by 1 - mu. `project_momentum` reproduces the published code: without Nesterov's look-ahead u is the
// buffer there, which keeps what the projection left of it. One pass makes the sums that c is made of, then the map recomputes
// u: 32 bytes per float32 element with a buffer.
#pragma once

#include "core/math.h"
#include "core/projection.h"
#include "core/rule.h"

namespace momentum::rules {

struct Sgdp : projection::Rule {
  static constexpr const char* kName = "sgdp";
  static constexpr StateInfo kStates[] = {{"momentum_buffers", true}};
  enum { kMomentum, kDampening, kNesterov, kEps, kDelta, kWdRatio, kProjectMomentum };
  static constexpr HyperInfo kHypers[] = {
      {"momentum", HyperKind::kFloat, 0.0, 0.0, 1.0, true},
      {"dampening", HyperKind::kFloat, 0.0, -1e300, 1e300},
      {"nesterov", HyperKind::kBool, 0, 0, 1},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
      {"delta", HyperKind::kFloat, 0.1, 0.0, 1e300},
      {"wd_ratio", HyperKind::kFloat, 0.1, 0.0, 1e300},
      {"project_momentum", HyperKind::kBool, 0, 0, 1},
  };

  template <class T>
  struct Constants {
    T momentum, one_minus_dampening, decay, projected_decay;
    projection::Limits limits;
    bool nesterov, project_momentum;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kMomentum]),
            T(1 - h[kDampening]),
            T(1 / (1 - h[kMomentum])),
            T(h[kWdRatio] / (1 - h[kMomentum])),
            {h[kDelta], h[kEps]},
            h[kNesterov] != 0,
            h[kProjectMomentum] != 0 && h[kNesterov] == 0};
  }

  template <class T>
  struct Scalars {
    T momentum, one_minus_dampening, lr, decay_scale;
    projection::Settled<T> projected;
    bool nesterov, project_momentum;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const auto projected = projection::settled<T>(c.limits, t);
    const T decay = projected.view == projection::kNone ? c.decay : c.projected_decay;
    return {c.momentum, c.one_minus_dampening, t.lr, decay, projected, c.nesterov, c.project_momentum};
  }
  template <class T, class V>
  MOMENTUM_HD static V direction(const Scalars<T>& s, V g, V stored, V* buffer) {
    *buffer = s.momentum * stored + s.one_minus_dampening * g;
    return s.nesterov ? g + s.momentum * *buffer : *buffer;
  }

  template <class T, class V, class Wide>
  MOMENTUM_HD static void products(const Scalars<T>& s, V g, V p, const V* x, Wide* out) {
    V buffer;
    projection::products(g, p, direction(s, g, x[0], &buffer), out);
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T p, T* x, T coefficient) {
    T buffer;
    const T u = direction(s, g, x[0], &buffer) - coefficient * p;
    x[0] = s.project_momentum ? u : buffer;
    return s.lr * u;
  }
};

}  // namespace momentum::rules
