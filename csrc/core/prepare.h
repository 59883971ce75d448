// From the arguments of a call to the scalars of one tensor: the same code on host and device.
#pragma once

#include "core/call.h"
#include "core/reductions.h"

namespace momentum {

// Where the totals of a call lie; uniform over the call.
struct TotalsLayout {
  int64_t offset[kMaxReductions] = {};   // first total of reduction k
  bool per_tensor[kMaxReductions] = {};  // one number each
  int completed = 0;                     // reductions whose totals may be read
};

// What pass k of a selection found for a tensor: kSelectedDigits and kSelectedRest.
template <class Rule>
MOMENTUM_HD double* selection_result(double* totals, const TotalsLayout& layout, int k, int64_t tensor) {
  return totals + layout.offset[k] + tensor * totals_width<Rule>(k) + selection_bins(k);
}

// What identifies one tensor within a call.
struct TensorFacts {
  int64_t index;
  double lr, weight_decay;
  int64_t numel, rows, cols;
  unsigned present;
  const float* scalars;
};

template <class Rule, class T>
struct Prepared {
  TensorContext<T> context;
  Frame<T> frame;
  typename Rule::template Scalars<T> scalars;
};

template <class Rule, class T>
MOMENTUM_HD typename Rule::template Constants<T> make_constants(const CommonArgs& a) {
  double hypers[kMaxHypers];
  for (int k = 0; k < kMaxHypers; ++k) {
    const bool on_device = a.device_hypers && a.hyper_tensors[k].data != nullptr;
    hypers[k] = on_device ? read(a.hyper_tensors[k], 0) : a.hypers[k];
  }
  return Rule::template constants<T>(hypers);
}

template <class Rule, class T>
MOMENTUM_HD TensorContext<T> make_context(const CommonArgs& a, const TotalsLayout& layout, const TensorFacts& t) {
  TensorContext<T> context{};
  context.lr = T(a.lr.data != nullptr ? read(a.lr, t.index) : t.lr);
  context.step = a.steps != nullptr ? T(a.steps[t.index] + 1.0f) : T(1);
  context.numel = t.numel;
  context.rows = t.rows;
  context.cols = t.cols;
  context.present = t.present;
  context.completed = layout.completed;
  context.scalars = t.scalars;
  if constexpr (product_count<Rule>() > 0) {
    constexpr int kPass = sum_count<Rule>() > 0 ? 1 : 0, kWidth = totals_width<Rule>(kPass);
    if (layout.completed > kPass) context.sums = a.totals + layout.offset[kPass] + t.index * kWidth;
  }
  if constexpr (selects<Rule>()) {
    constexpr int kLast = kSelectionPasses - 1;
    if (layout.completed > kLast) context.sums = selection_result<Rule>(a.totals, layout, kLast, t.index);
  }
  for (int k = 0; k < kMaxReductions; ++k) {
    const bool known = k < layout.completed && layout.per_tensor[k];
    context.totals[k] = known ? a.totals[layout.offset[k] + t.index] : 0.0;
  }
  return context;
}

// `completed` equals the number of reductions when the map is being prepared.
template <class Rule, class T>
MOMENTUM_HD Prepared<Rule, T> prepare(const CommonArgs& a, const typename Rule::template Constants<T>& constants,
                                      const TotalsLayout& layout, const TensorFacts& t) {
  Prepared<Rule, T> p;
  p.context = make_context<Rule, T>(a, layout, t);
  p.scalars = Rule::template prepare<T>(constants, p.context);
  T weight_decay = T(a.weight_decay.data != nullptr ? read(a.weight_decay, t.index) : t.weight_decay);
  if constexpr (requires { Rule::decay_scale(p.scalars); }) {
    if (a.decay != DecayMode::kL2) weight_decay *= Rule::decay_scale(p.scalars);
  }
  const T sign = a.maximize ? T(-1) : T(1);
  const T grad_factor = a.grad_scale != nullptr ? sign / T(*a.grad_scale) : sign;
  T cautious_scale = T(1);
  const int last = reduction_count<Rule>();
  if (a.cautious == Cautious::kRescaled && layout.completed > last) {
    const double share = p.context.totals[last] / double(t.numel);
    cautious_scale = T(1.0 / (share > kCautiousFloor ? share : kCautiousFloor));
  }
  p.frame = make_frame<T>(a.decay, p.context.lr, weight_decay, T(a.max_lr), grad_factor, a.cautious != Cautious::kOff,
                          cautious_scale, T(1.0 - a.ema_decay));
  if (a.perpendicular != nullptr) {
    const double* settled = a.perpendicular + t.index * kPerpendicularTotals;
    make_perpendicular(p.frame, T(settled[kPerpendicularShare]), T(settled[kPerpendicularKeep]));
  }
  return p;
}

}  // namespace momentum
