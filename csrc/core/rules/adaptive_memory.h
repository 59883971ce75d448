// Momentum with adaptive memory (Topollai & Choromanska 2025): SGD with the update and the weight beta that follow from a model
// of two planes, the gradient g and the memory d, of equal height at p, and a proximal term that pulls the step towards d by
// lambda:
//   d = ((beta + lambda) d + (1 - beta) g) / (1 + lambda)  (d = g at the first step),  p -= lr d / P
//   beta = clip((1 + lambda) / 2 * (||g||^2 - ||d||^2) / ||g - d||^2 + (1 - lambda) / 2, 0, 1)
// where the squared norms are weighted by 1 / P. P is 1 or, where a second moment is kept, Adam's sqrt(v / (1 - b2^t)) + eps.
// The form of the update is the paper's; beta is derived from the model here, per tensor. One pass makes the three sums, then
// the map.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct AdaptiveMemory {
  static constexpr const char* kName = "adaptive_memory";
  static constexpr StateInfo kStates[] = {{"memories"}, {"exp_avg_sqs", true}};
  enum { kLambda, kBeta2, kEps };
  static constexpr HyperInfo kHypers[] = {
      {"pull", HyperKind::kFloat, 0.1, 0.0, 1e300},
      {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
  };

  template <class T>
  struct Constants {
    T pull, keep, beta2, one_minus_beta2, log_beta2, eps;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kLambda]), T(1 / (1 + h[kLambda])), T(h[kBeta2]), T(1 - h[kBeta2]), T(math::log(h[kBeta2])), T(h[kEps])};
  }

  enum { kGradient, kMemory, kDistance };
  static constexpr int kProducts = 3;

  template <class T>
  struct Scalars {
    T old_weight, new_weight;  // of d and g
    T beta2, one_minus_beta2, inverse_root, eps, lr;
    bool first, weighted;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const bool weighted = (t.present & 2u) != 0;
    Scalars<T> s{T(0), T(1), c.beta2, c.one_minus_beta2, T(1), c.eps, t.lr, t.step <= T(1), weighted};
    if (weighted) s.inverse_root = T(1) / math::sqrt(math::one_minus_power(c.log_beta2, t.step));
    if (t.sums != nullptr && !s.first) {
      const double pull = double(c.pull), distance = t.sums[kDistance];
      const double excess = t.sums[kGradient] - t.sums[kMemory];
      double beta = distance != 0 ? 0.5 * (1 + pull) * excess / distance + 0.5 * (1 - pull) : 0.0;
      beta = beta < 0 ? 0 : beta > 1 ? 1 : beta;
      s.old_weight = T(beta + pull) * c.keep;
      s.new_weight = T(1 - beta) * c.keep;
    }
    return s;
  }

  // The weight 1 / P of one element, and the second moment it is made of.
  template <class T, class V>
  MOMENTUM_HD static V inverse_scale(const Scalars<T>& s, V g, V second, V* updated) {
    *updated = s.beta2 * second + s.one_minus_beta2 * g * g;
    return s.weighted ? T(1) / (math::sqrt(*updated) * s.inverse_root + s.eps) : V{} + T(1);
  }

  template <class T, class V, class Wide>
  MOMENTUM_HD static void products(const Scalars<T>& s, V g, V, const V* x, Wide* out) {
    V updated;
    const Wide weight = math::wide(inverse_scale(s, g, x[1], &updated));
    const V memory = s.first ? g : x[0];
    const Wide grad = math::wide(g), kept = math::wide(memory), change = math::wide(g - memory);
    out[kGradient] = grad * grad * weight;
    out[kMemory] = kept * kept * weight;
    out[kDistance] = change * change * weight;
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    T updated;
    const T weight = inverse_scale(s, g, x[1], &updated);
    x[0] = s.first ? g : s.old_weight * x[0] + s.new_weight * g;
    x[1] = s.weighted ? updated : x[1];
    return s.lr * weight * x[0];
  }
};

}  // namespace momentum::rules
