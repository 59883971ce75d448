// Lion-K (Chen et al. 2024) of the top-k norm, the sum of the k largest magnitudes of a tensor:
//   c = b1 m + (1 - b1) g,  p -= lr sign(c) where |c| is at least the k-th largest magnitude,  m = b2 m + (1 - b2) g
// k is `count`, or where that is 0 the share `density` of the tensor, rounded down; at least 1, at most all. Entries that tie
// with the k-th are stepped as well. Three passes over g and m select (core/selection.h), then the map makes c again: 44 bytes
// per float32 element.
#pragma once

#include "core/math.h"
#include "core/rule.h"
#include "core/selection.h"

namespace momentum::rules {

struct LionTopK {
  static constexpr const char* kName = "lion_top_k";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}};
  enum { kBeta1, kBeta2, kDensity, kCount };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.99, 0.0, 1.0, true, true},
      {"density", HyperKind::kFloat, 0.1, 0.0, 1.0},
      {"count", HyperKind::kInt, 0, 0, 1e15},
  };

  template <class T>
  struct Constants {
    T beta1, one_minus_beta1, beta2, one_minus_beta2;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]), T(1 - h[kBeta1]), T(h[kBeta2]), T(1 - h[kBeta2])};
  }

  static constexpr bool kSelects = true;
  static constexpr int kReductions = kSelectionPasses;
  MOMENTUM_HD static ReduceOp reduce_op(int, const double*) { return ReduceOp::kSum; }

  MOMENTUM_HD static double selected(const double* h, double numel) {
    const double wanted = h[kCount] > 0 ? h[kCount] : double(int64_t(h[kDensity] * numel));
    const double least = wanted < 1 ? 1.0 : wanted;
    return least < numel ? least : numel;
  }

  template <class T>
  struct Scalars {
    Constants<T> c;
    T lr;
    float threshold;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const auto key = t.sums != nullptr ? uint32_t(t.sums[kSelectedDigits]) : 0u;
    return {c, t.lr, bit_cast<float>(key)};
  }

  // The same bits wherever it is called from, or the k-th largest would not be found again.
  template <class T>
  MOMENTUM_HD static T mixed(const Scalars<T>& s, T g, T momentum) {
    return math::multiply_add(s.c.beta1, momentum, s.c.one_minus_beta1 * g);
  }

  template <class T>
  MOMENTUM_HD static T measure(int, const Scalars<T>& s, T g, T, const T* x) {
    return mixed(s, g, x[0]);
  }

  template <class T>
  MOMENTUM_HD static T update(const Scalars<T>& s, T g, T, T* x, T) {
    const T c = mixed(s, g, x[0]);
    const bool chosen = (float(math::abs(c)) >= s.threshold) & (math::abs(c) > T(0));
    x[0] = s.c.beta2 * x[0] + s.c.one_minus_beta2 * g;
    return s.lr * (chosen ? math::copysign(T(1), c) : c != c ? c : T(0));
  }
};

}  // namespace momentum::rules
