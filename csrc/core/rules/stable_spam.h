// Stable-SPAM (Huang et al. 2025): per tensor, with g the gradient and k the number of the step,
//   AdaClip:  G = max |g|,  M = theta M + (1 - theta) G,  T = M / (1 - theta^k),  entries |g| > T become (g / G) T
//   AdaGN:    n = ||clipped g||,  mu = g1 s mu + (1 - g1 s) n,  nu = g2 nu + (1 - g2) n^2,
//             g = g / n * (mu / (1 - (g1 s)^k)) / (sqrt(nu / (1 - g2^k)) + eps)
//   Adam with b1 s in place of b1, moments and its step counter reset every `reset_interval` steps
// where s falls along a cosine from 1 to eta_min over total_steps (s = 1 without a schedule).
// Two dependent reductions, then the map: the clipped norm needs T, the update needs the norm.
//
// `official` reproduces the published code: on a reset step the old moments are used once more with k = 1 and zeros are stored,
// the scalar averages share the counter that is reset, and the cosine rises again after total_steps.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct StableSpam {
  static constexpr const char* kName = "stable_spam";
  static constexpr StateInfo kStates[] = {{"exp_avgs"}, {"exp_avg_sqs"}};
  static constexpr int kScalars = 3;
  enum { kMaxAverage, kNormAverage, kSquareAverage };  // M, mu, nu
  enum { kBeta1, kBeta2, kEps, kGamma1, kGamma2, kTheta, kTotalSteps, kEtaMin, kResetInterval, kOfficial };
  static constexpr HyperInfo kHypers[] = {
      {"beta1", HyperKind::kFloat, 0.9, 0.0, 1.0, true, true},
      {"beta2", HyperKind::kFloat, 0.999, 0.0, 1.0, true, true},
      {"eps", HyperKind::kFloat, 1e-8, 0.0, 1e300},
      {"gamma1", HyperKind::kFloat, 0.7, 0.0, 1.0, true},
      {"gamma2", HyperKind::kFloat, 0.9, 0.0, 1.0, true},
      {"theta", HyperKind::kFloat, 0.999, 0.0, 1.0, true},
      {"total_steps", HyperKind::kInt, 0, 0, 1e15},
      {"eta_min", HyperKind::kFloat, 0.5, 0.0, 1.0},
      {"reset_interval", HyperKind::kInt, 1000, 0, 1e9},
      {"official", HyperKind::kBool, 0, 0, 1},
  };

  template <class T>
  struct Constants {
    T beta1, beta2, eps, gamma1, gamma2, theta, eta_min;
    T log_beta2, log_gamma2, log_theta;
    T one_minus_beta2, one_minus_gamma2, one_minus_theta;
    int64_t total_steps, reset_interval;
    bool official;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {T(h[kBeta1]),
            T(h[kBeta2]),
            T(h[kEps]),
            T(h[kGamma1]),
            T(h[kGamma2]),
            T(h[kTheta]),
            T(h[kEtaMin]),
            T(math::log(h[kBeta2])),
            T(math::log(h[kGamma2])),
            T(math::log(h[kTheta])),
            T(1 - h[kBeta2]),
            T(1 - h[kGamma2]),
            T(1 - h[kTheta]),
            int64_t(h[kTotalSteps]),
            int64_t(h[kResetInterval]),
            h[kOfficial] != 0};
  }

  // The counters and the cosine, from the number of the step alone.
  template <class T>
  struct Clock {
    T scale;         // s
    T average_step;  // k of the scalar averages
    T adam_step;     // k of Adam
    bool reset;
  };
  template <class T>
  MOMENTUM_HD static Clock<T> clock(const Constants<T>& c, T step) {
    const int64_t t = int64_t(step);
    const bool resets = c.reset_interval > 0;
    const bool reset = resets && t % c.reset_interval == 0;
    const int64_t last = resets ? (t - 1) / c.reset_interval * c.reset_interval : 0;  // last reset before this step
    const int64_t since = last > 0 ? t - last + 1 : t;
    const int64_t end = c.total_steps + 1;
    const int64_t position = c.official || t < end ? t : end;
    const T cosine = (T(1) + math::cospi(T(position) / T(end))) / T(2);
    const T scale = c.total_steps > 0 ? c.eta_min + (T(1) - c.eta_min) * cosine : T(1);
    return {scale, T(c.official ? since : t), T(reset ? 1 : since), reset};
  }

  static constexpr int kReductions = 2;
  static constexpr unsigned kReductionReads = 0;
  MOMENTUM_HD static ReduceOp reduce_op(int k, const double*) { return k == 0 ? ReduceOp::kMax : ReduceOp::kSum; }

  template <class T>
  struct Scalars {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size, inverse_root;
    T limit, rescale, norm_factor;
    bool reset, official;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>& t) {
    const Clock<T> now = clock(c, t.step);
    Scalars<T> s{};
    s.beta1 = c.beta1 * now.scale;
    s.beta2 = c.beta2;
    s.one_minus_beta1 = T(1) - s.beta1;
    s.one_minus_beta2 = c.one_minus_beta2;
    s.eps = c.eps;
    s.reset = now.reset;
    s.official = c.official;
    if (t.completed > 0) {
      s.limit = T(t.scalars[kMaxAverage]) / math::one_minus_power(c.log_theta, now.average_step);
      s.rescale = s.limit / T(t.totals[0]);
    }
    if (t.completed > 1) {
      const T norm = T(math::sqrt(t.totals[1]));
      const T gamma1 = c.gamma1 * now.scale;
      const T mean = T(t.scalars[kNormAverage]) / math::one_minus_power(math::log(gamma1), now.average_step);
      const T square = T(t.scalars[kSquareAverage]) / math::one_minus_power(c.log_gamma2, now.average_step);
      s.norm_factor = norm > T(0) || norm != norm ? mean / (math::sqrt(square) + c.eps) / norm : T(1);
      s.step_size = t.lr / math::one_minus_power(math::log(s.beta1), now.adam_step);
      s.inverse_root = T(1) / math::sqrt(math::one_minus_power(c.log_beta2, now.adam_step));
    }
    return s;
  }

  template <class T, class V>
  MOMENTUM_HD static V clip(const Scalars<T>& s, V g) {
    return math::abs(g) > s.limit ? g * s.rescale : g;
  }

  template <class T, class V>
  MOMENTUM_HD static V measure(int k, const Scalars<T>& s, V g, V, const V*) {
    const V clipped = clip(s, g);
    return k == 0 ? math::abs(g) : clipped * clipped;
  }

  template <class T>
  MOMENTUM_HD static void finalize(int k, const Constants<T>& c, const TensorContext<T>& t, double total, float* scalars) {
    const Clock<T> now = clock(c, t.step);
    if (k == 0) {
      scalars[kMaxAverage] = float(c.theta * T(scalars[kMaxAverage]) + c.one_minus_theta * T(total));
    } else {
      const T gamma1 = c.gamma1 * now.scale;
      const T norm = T(math::sqrt(total));
      scalars[kNormAverage] = float(gamma1 * T(scalars[kNormAverage]) + (T(1) - gamma1) * norm);
      scalars[kSquareAverage] = float(c.gamma2 * T(scalars[kSquareAverage]) + c.one_minus_gamma2 * norm * norm);
    }
  }

  template <class T>
  MOMENTUM_HD static bool fresh(const Scalars<T>& s) {
    return s.reset && !s.official;
  }

  template <class T>
  MOMENTUM_HD static Moments<T> moments(const Scalars<T>& s) {
    const T f = s.norm_factor;
    return {{s.beta1, s.beta2},
            {s.one_minus_beta1 * f, s.one_minus_beta2 * f * f},
            s.step_size,
            s.inverse_root,
            s.eps,
            !s.reset,
            s.limit,
            s.rescale};
  }

  template <class T, class V>
  MOMENTUM_HD static V update(const Scalars<T>& s, V g, V, V* x, V) {
    const bool zeroed = s.reset && !s.official;
    const V first = zeroed ? V{} : x[0];
    const V second = zeroed ? V{} : x[1];
    g = clip(s, g) * s.norm_factor;
    const V m = s.beta1 * first + s.one_minus_beta1 * g;
    const V v = s.beta2 * second + s.one_minus_beta2 * g * g;
    const bool store_zero = s.reset && s.official;
    x[0] = store_zero ? V{} : m;
    x[1] = store_zero ? V{} : v;
    return s.step_size * m / (math::sqrt(v) * s.inverse_root + s.eps);
  }
};

}  // namespace momentum::rules
