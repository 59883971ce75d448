// SPAM with dense momentum (Huang et al. 2025, "Spike-Aware Adam with Momentum Reset"):
//   every `reset_interval` steps m = v = 0 before use, and the update is scaled by a cosine re-warm-up for `warmup_steps` steps
//   where g^2 > threshold v (and clipping is active): g = sign(g) sqrt(threshold v)
//   m, v as in Adam;  p -= w lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
// Clipping starts after `accumulation_steps` steps and pauses that long after each reset. The limit uses the v that is loaded
// anyway, and on a reset step m and v are not read. The step counter is never reset, so nothing is bias-corrected again.
// The official code counts steps per optimizer, this one per tensor: the same unless parameters are added late.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Spam {
  static constexpr const char* kName = "spam";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_sqs"}};
  enum { kBeta1, kBeta2, kEps, kThreshold, kResetInterval, kWarmupSteps, kAccumulationSteps, kGuardZeroV };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-6, 0.0, 1e300},
      {"threshold", HyperKind::kFloat, 5000.0, 0.0, 1e300},
      {"reset_interval", HyperKind::kInt, 500, 0, 1e9},
      {"warmup_steps", HyperKind::kInt, 150, 0, 1e9},
      {"accumulation_steps", HyperKind::kInt, 20, 0, 1e9},
      {"guard_zero_v", HyperKind::kBool, 1, 0, 1},  // an element whose v is 0 is not clipped (the official code freezes it)
  };

  template <class T>
  struct Constants {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, log_beta1, log_beta2, eps, threshold;
    int64_t reset_interval, warmup_steps, accumulation_steps;
    bool guard_zero_v;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]),
            T(h[kBeta2]),
            T(1 - h[kBeta1]),
            T(1 - h[kBeta2]),
            T(math::log(h[kBeta1])),
            T(math::log(h[kBeta2])),
            T(h[kEps]),
            T(h[kThreshold]),
            int64_t(h[kResetInterval]),
            int64_t(h[kWarmupSteps]),
            int64_t(h[kAccumulationSteps]),
            h[kGuardZeroV] != 0};
  }

  template <class T>
  struct Scalars {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size;
    T threshold;  // infinite while clipping pauses: nothing exceeds the limit then, nor compares with inf * 0
    T smallest;   // only above it is v a limit
    bool reset;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const int64_t step = int64_t(t.step);
    const bool after_reset = c.reset_interval > 0 && step >= c.reset_interval;
    const int64_t since = after_reset ? step % c.reset_interval : step;
    // 1 - 0.99 (1 + cos(pi x)) / 2 without cancellation near x = 0.
    const T half_sine = math::sinpi(T(since) / (T(2) * T(c.warmup_steps + 1)));
    const T warmup = after_reset && since < c.warmup_steps ? T(0.01) + T(0.99) * half_sine * half_sine : T(1);
    const T correction1 = math::one_minus_power(c.log_beta1, t.step);
    const T correction2 = math::one_minus_power(c.log_beta2, t.step);
    return {c.beta1,
            c.beta2,
            c.one_minus_beta1,
            c.one_minus_beta2,
            c.eps,
            warmup * t.lr * math::sqrt(correction2) / correction1,
            c.threshold > T(0) && since >= c.accumulation_steps ? c.threshold : T(__builtin_huge_val()),
            c.guard_zero_v ? T(0) : T(-1),
            after_reset && since == 0};
  }

  template <class T>
  MOMENTUM_HD static bool fresh(const Scalars<T>& s) {
    return s.reset;
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    const V first = s.reset ? V{} : x[0];
    const V second = s.reset ? V{} : x[1];
    const V limit = s.threshold * second;
    const auto clipped = (g * g > limit) & (second > s.smallest);
    if (math::any_of<V>(clipped)) g = clipped ? math::copysign(math::sqrt(limit), g) : g;
    x[0] = s.beta1 * first + s.one_minus_beta1 * g;
    x[1] = s.beta2 * second + s.one_minus_beta2 * g * g;
    return s.step_size * x[0] / (math::sqrt(x[1]) + s.eps);
  }
};

}  // namespace momentum::rules
