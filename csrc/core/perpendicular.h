// The sums behind the part of a gradient that is perpendicular to its weights (Prieto et al. 2025, "Grokking at the Edge of
// Numerical Stability"), tensor by tensor:
//   a = <w, g> / <w, w>,  g = (g - a w) ||g|| / ||g - a w||     (without the last factor where it is not renormalised)
// A rule without a map: any step may run it first and then sees g as one factor times the gradient plus one times the
// parameter, which its frame has anyway. ||g - a w||^2 = <g, g> - a <w, g> cancels where g is nearly parallel to w: the sums
// are in double, and where it is below (4 ulp of float32)^2 of <g, g> what is left is but rounding and counts as 0, as it does
// for every tensor of one element.
#pragma once

#include "core/call.h"
#include "core/math.h"
#include "core/rule.h"

namespace momentum::rules {

struct Perpendicular {
  static constexpr const char* kName = "perpendicular";
  enum { kRenormalize };
  static constexpr HyperInfo kHypers[] = {{"renormalize", HyperKind::kBool, 1, 0, 1}};

  template <class T>
  struct Constants {
    bool renormalize;
  };
  template <class T>
  MOMENTUM_HD static Constants<T> constants(const double* h) {
    return {h[kRenormalize] != 0};
  }

  enum { kSquare, kProduct, kWhole };
  static constexpr int kProducts = kPerpendicularTotals;
  static constexpr bool kReductionReadsParam = true;

  template <class T>
  struct Scalars {};
  template <class T>
  MOMENTUM_HD static Scalars<T> prepare(const Constants<T>&, const TensorContext<T>&) {
    return {};
  }

  template <class T, class V, class Wide>
  MOMENTUM_HD static void products(const Scalars<T>&, V g, V w, const V*, Wide* out) {
    const Wide grad = math::wide(g), weight = math::wide(w);
    out[kSquare] = weight * weight;
    out[kProduct] = weight * grad;
    out[kWhole] = grad * grad;
  }

  template <class T>
  MOMENTUM_HD static void settle(const Constants<T>& c, const TensorContext<T>&, double* sums) {
    const double square = sums[kSquare], whole = sums[kWhole];
    const double share = square != 0 ? sums[kProduct] / square : 0.0;
    const double rest = whole - share * sums[kProduct];
    const bool parallel = rest <= 0x1p-42 * whole;  // also where all is 0; NaN is not
    sums[kPerpendicularShare] = share;
    sums[kPerpendicularKeep] = parallel ? 0.0 : c.renormalize ? math::sqrt(whole / rest) : 1.0;
  }
};

// What a call of another rule becomes for this one; the tensors are the same.
inline CommonArgs perpendicular_pass(const CommonArgs& common) {
  CommonArgs pass;
  pass.hypers[Perpendicular::kRenormalize] = common.renormalize ? 1.0 : 0.0;
  pass.found_inf = common.found_inf;
  pass.totals = common.perpendicular;
  pass.residual = common.residual;
  return pass;
}

}  // namespace momentum::rules
