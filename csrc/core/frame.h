// What all steps share around the rule: unscaling, maximize, the weight-decay modes, the cautious mask, the weight average.
#pragma once

#include "core/config.h"
#include "core/math.h"
#include "core/rule.h"

namespace momentum {

enum class DecayMode : int8_t {
  kNone = 0,
  kL2 = 1,              // g += wd p
  kDecoupled = 2,       // p *= 1 - lr wd, before the update
  kLrDecoupled = 3,     // p *= 1 - (lr / max_lr) wd
  kProximal = 4,        // p = (p - u) / (1 + lr wd)
  kDecoupledAfter = 5,  // p = (p - u) (1 - lr wd)
};

enum class Cautious : int8_t { kOff = 0, kMask = 1, kRescaled = 2 };
enum class ResidualKind : int8_t { kNone = 0, kKahan = 1, kMaster = 2, kLowBits = 3 };
enum class Rounding : int8_t { kNearest = 0, kStochastic = 1 };

// Uniform over one tensor.
template <class T>
struct Frame {
  T grad_factor;   // +-1 / grad_scale
  T l2;            // of the parameter in the gradient: coupled decay, less what makes the gradient perpendicular
  T decay_before;  // multiplies p before the update
  T decay_after;   // multiplies p after it
  T cautious_scale;
  T ema_weight;  // 1 - ema_decay
  bool cautious;
};

template <class T>
MOMENTUM_HD Frame<T> make_frame(DecayMode mode, T lr, T weight_decay, T max_lr, T grad_factor, bool cautious, T cautious_scale,
                                T ema_weight) {
  Frame<T> f{grad_factor, T(0), T(1), T(1), cautious_scale, ema_weight, cautious};
  switch (mode) {
    case DecayMode::kNone:
      break;
    case DecayMode::kL2:
      f.l2 = weight_decay;
      break;
    case DecayMode::kDecoupled:
      f.decay_before = T(1) - lr * weight_decay;
      break;
    case DecayMode::kLrDecoupled:
      f.decay_before = T(1) - lr / max_lr * weight_decay;
      break;
    case DecayMode::kProximal:
      f.decay_after = T(1) / (T(1) + lr * weight_decay);
      break;
    case DecayMode::kDecoupledAfter:
      f.decay_after = T(1) - lr * weight_decay;
      break;
  }
  return f;
}

// The share of a tensor that the cautious mask keeps never divides by less than this (Liang et al. 2024, official code).
inline constexpr double kCautiousFloor = 1e-3;

// Makes the gradient that the rule sees keep (g - share p), whatever scales it: both factors are there already.
template <class T>
MOMENTUM_HD void make_perpendicular(Frame<T>& f, T share, T keep) {
  f.grad_factor *= keep;
  f.l2 -= f.grad_factor * share;
}

template <class T, class V>
MOMENTUM_HD V effective_gradient(const Frame<T>& f, V g, V p) {
  g *= f.grad_factor;
  return f.l2 != T(0) ? math::multiply_add(f.l2, p, g) : g;
}

// What a step takes off an element, or off a vector V of them; g is the effective gradient. `total` is the total of the
// element's row or column, for rules that use one.
template <class Rule, class T, class V>
MOMENTUM_HD V masked_update(const Frame<T>& f, const typename Rule::template Scalars<T>& s, V g, V p, V* x, V total) {
  const V u = Rule::template update<T>(s, g, p, x, total);
  const V masked = u * g > T(0) ? u * f.cautious_scale : u * T(0);  // NaN stays NaN
  return f.cautious ? masked : u;
}

template <class T, class V>
MOMENTUM_HD V updated(const Frame<T>& f, V p, V u) {
  return (p * f.decay_before - u) * f.decay_after;
}

// One element of the map, or a vector V of them.
template <class Rule, class T, class V>
MOMENTUM_HD void step_element(const Frame<T>& f, const typename Rule::template Scalars<T>& s, V g, V& p, V* x, V total) {
  p = updated(f, p, masked_update<Rule>(f, s, effective_gradient(f, g, p), p, x, total));
}

// One element of the reduction that counts what the cautious mask keeps. The sign of the update does not depend on the total of
// a row or column, which only scales it, but where has_segment_values.
template <class Rule, class T>
MOMENTUM_HD T cautious_count(const Frame<T>& f, const typename Rule::template Scalars<T>& s, T g, T p, const T* x, T total) {
  T copy[kMaxStates];
  for (int k = 0; k < state_count<Rule>(); ++k) copy[k] = x[k];
  g = effective_gradient(f, g, p);
  const T u = Rule::template update<T>(s, g, p, copy, total);
  return u * g > T(0) ? T(1) : T(0);
}

}  // namespace momentum
