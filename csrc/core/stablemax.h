// Cross-entropy with StableMax in place of softmax (Prieto et al., "Grokking at the Edge of Numerical Stability", 2025):
//   s(x) = x + 1 for x >= 0 and 1 / (1 - x) below,   loss = -log(s(x_y) / sum_j s(x_j)).
//
// With `rest`, the sum over all classes but the target, it is log(1 + rest / s(x_y)), and the derivative at the target has the
// factor rest / (rest + s(x_y)): nothing cancels, however sure the model is, so that float32 does where the plain formula needs
// float64.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/dtype.h"
#include "core/math.h"

namespace momentum {

struct StableMaxCall {
  const void* logits = nullptr;  // [rows, classes], contiguous
  const void* target = nullptr;  // [rows], int64 or int32
  void* losses = nullptr;        // [rows], float, or double for float64 logits; read or written
  double* rest = nullptr;        // [rows]; written by the loss, read by the gradient
  void* grad = nullptr;          // of the logits: what the gradient writes
  int64_t rows = 0, classes = 0, ignore_index = 0;
  DType dtype = DType::kFloat32;
  bool wide_target = true;
};

namespace stablemax {

inline constexpr int64_t kIgnored = -1, kInvalid = -2;

// The class of a row, or why it has none.
MOMENTUM_HD int64_t target_of(const StableMaxCall& call, int64_t row) {
  const int64_t y =
      call.wide_target ? static_cast<const int64_t*>(call.target)[row] : int64_t(static_cast<const int32_t*>(call.target)[row]);
  return y == call.ignore_index ? kIgnored : y >= 0 && y < call.classes ? y : kInvalid;
}

template <class T>
MOMENTUM_HD T activation(T x) {
  const T a = T(1) + math::abs(x);
  return x >= T(0) ? a : T(1) / a;
}

// ds / dx, which below zero is s^2. NaN stays NaN.
template <class T>
MOMENTUM_HD T slope(T x) {
  const T s = T(1) / (T(1) + math::abs(x));
  return x >= T(0) ? T(1) : s * s;
}

// The loss of a row whose target has the logit x.
MOMENTUM_HD double loss(double rest, double x) { return __builtin_log1p(rest / activation(x)); }

// The derivative by logit j is `others` slope(x_j), at the target `own`.
template <class T>
struct RowGradient {
  T others, own;
};

template <class T>
MOMENTUM_HD RowGradient<T> row_gradient(double grad, double rest, double x) {
  const double s = activation(x);
  const double relative_slope = x >= 0 ? 1 / s : s;  // ds / dx / s
  return {T(grad / (rest + s)), T(-grad * relative_slope / (1 + s / rest))};
}

}  // namespace stablemax
}  // namespace momentum
