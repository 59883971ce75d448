// Plain reductions over lists of tensors, written as a rule without an update so that the drivers of the reductions serve them:
// x is the parameter, y the gradient.
#pragma once

#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Statistic {
  static constexpr const char* kName = "segment_reduce";
  enum Operand { kSum = 0, kSumOfSquares = 1, kDot = 2, kAbsMax = 3, kAgreement = 4 };
  enum { kOperand, kAxis };
  static constexpr HyperInfo kHypers[] = {
      {"kind", HyperKind::kInt, 0, 0, 4},
      {"axis", HyperKind::kInt, -1, -1, 1},
  };

  template <class T>
  struct Constants {
    int operand;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {int(h[kOperand])};
  }

  static constexpr int kReductions = 1;
  static constexpr bool kReductionReadsParam = true;
  MOMENTUM_HD static ReduceOp reduce_op(int, const double* h) {
    return int(h[kOperand]) == kAbsMax ? ReduceOp::kMax : ReduceOp::kSum;
  }
  MOMENTUM_HD static Axis segment_axis(const double* h) { return Axis(int(h[kAxis])); }

  template <class T>
  struct Scalars {
    int operand;
  };
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>& c, const TensorContext<T>&) {
    return {c.operand};
  }

  template <class T, class V>
  MOMENTUM_HD static V measure(int, const Scalars<T>& s, V y, V x, const V*) {
    const V other = s.operand == kSumOfSquares ? x : y;
    const V product = x * other;
    const V magnitude = math::abs(x);
    const auto same_sign = ((x > T(0)) & (y > T(0))) | ((x < T(0)) & (y < T(0)));  // their product may underflow
    const V one = same_sign ? V{} + T(1) : V{};
    const V agrees = (x != x) | (y != y) ? x + y : one;
    return s.operand == kSum ? x : s.operand == kAbsMax ? magnitude : s.operand == kAgreement ? agrees : product;
  }
};

}  // namespace momentum::rules
