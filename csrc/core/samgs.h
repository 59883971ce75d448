// SAM-GS, gradient surgery by the similarity of the tasks' gradients in magnitude (Borsani et al., 2025). With norms n_i of T
// tasks,
//   S = mean over i < j of 2 n_i n_j / (n_i^2 + n_j^2),   v = b2 v + (1 - b2) (1 - S)^2 + 1e-8,   m_i = b1 m_i + (1 - b1) g_i,
//   out = T sum_i g_i mean(n) / n_i  where S < gamma,  otherwise  T sum_i g_i |m_i / (1 - b1^t)| / sqrt(v / (1 - b2^t)).
//
// Either way out = sum_i g_i (a_i or b |m_i|), with numbers that are decided on the device: weights = [a_1 .. a_T, b, S], b = 0
// where the a_i count.
#pragma once

#include <cstdint>
#include <vector>

#include "core/call.h"
#include "core/math.h"

namespace momentum {

struct SamgsDecision {
  const double* squares = nullptr;  // [tasks, tensors]: sums of squares
  double* state = nullptr;          // v, completed steps
  double* weights = nullptr;        // [tasks + 2]
  int64_t tasks = 0, tensors = 0;
  double beta1 = 0, beta2 = 0, gamma = 0;
};

// One parameter with what its tasks have for it.
struct SamgsTensor {
  void* out = nullptr;
  void* const* exp_avgs = nullptr;     // [tasks], of the arithmetic type
  const void* const* grads = nullptr;  // [tasks]
  DType out_dtype = DType::kFloat32, grad_dtype = DType::kFloat32;
  int64_t numel = 0;
};

struct SamgsCall {
  std::vector<SamgsTensor> tensors;
  const double* weights = nullptr;
  int tasks = 0;
  double beta1 = 0;
};

namespace samgs {

inline constexpr int kMostTasks = 64;

// Of two norms, from their squares; nothing is as similar as nothing.
MOMENTUM_HD double similarity(double a, double b) {
  const double sum = a + b;
  return sum == 0 ? 1.0 : 2 * math::sqrt(a) * math::sqrt(b) / sum;
}

// Advances the state and leaves b and S; what remains are the a_i, by `equal_weight`.
MOMENTUM_HD void decide(const SamgsDecision& d, double similarity_total) {
  const auto tasks = double(d.tasks);
  const double similarity = similarity_total / (tasks * (tasks - 1) / 2), apart = 1 - similarity;
  const double v = d.beta2 * d.state[0] + (1 - d.beta2) * apart * apart + 1e-8, step = d.state[1] + 1;
  const double c1 = math::one_minus_power(math::log(d.beta1), step), c2 = math::one_minus_power(math::log(d.beta2), step);
  d.state[0] = v;
  d.state[1] = step;
  d.weights[d.tasks] = similarity < d.gamma ? 0.0 : tasks / (c1 * math::sqrt(v / c2));
  d.weights[d.tasks + 1] = similarity;
}

// A task without a gradient has no part in the sum.
MOMENTUM_HD double equal_weight(double norm_total, double norm) { return norm == 0 ? 0.0 : norm_total / norm; }

template <class T>
struct Scalars {
  T beta1, rest, b;
};

template <class T>
MOMENTUM_HD Scalars<T> prepare(double beta1, double b) {
  return {T(beta1), T(1 - beta1), T(b)};
}

// Advances the average m, returns the task's part of the sum; a is its weight.
template <class T>
MOMENTUM_HD T element(const Scalars<T>& s, T a, T g, T* m) {
  *m = s.beta1 * *m + s.rest * g;
  const T modulated = s.b * math::abs(*m);
  return g * (s.b == T(0) ? a : modulated);
}

}  // namespace samgs
}  // namespace momentum
