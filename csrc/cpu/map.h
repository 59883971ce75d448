// The map on the CPU: one pass over a range of one tensor.
//
// Streams whose storage type is the arithmetic type are used in place and whole ranges run in one loop; the others are decoded
// to a tile, stepped, and encoded again, so rules and formats meet only in first-level cache and never in the type system.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/formats/formats.h"
#include "core/prepare.h"
#include "cpu/kernels.h"
#include "cpu/map_codes.h"
#include "cpu/moments.h"
#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <class T>
using Native = std::conditional_t<sizeof(T) == sizeof(double), formats::Float64, formats::Float32>;

// What a step is told of the totals of rows or columns: nothing, the one total of the row that it is in, or each element's.
enum class Totals { kNone, kOfRow, kOfEach };

// kActive: how many states are stored (optional ones come last). Their streams and `ema` have the arithmetic type here; the
// parameter and its gradient have it, or are bfloat16.
template <class Rule, class T, int kActive, bool kEma, Totals kTotals, class Format>
static inline void step_tile(const Frame<T>& frame, const typename Rule::template Scalars<T>& scalars, int64_t n,
                             typename Format::Storage* __restrict p, const typename Format::Storage* __restrict g,
                             T* const* states, T* __restrict ema, const T* __restrict totals) {
  T* __restrict x0 = kActive > 0 ? states[0] : nullptr;
  T* __restrict x1 = kActive > 1 ? states[1] : nullptr;
  T* __restrict x2 = kActive > 2 ? states[2] : nullptr;
  T* __restrict x3 = kActive > 3 ? states[3] : nullptr;
  const Frame<T> f = frame;
  const typename Rule::template Scalars<T> s = scalars;
  const T of_row = kTotals == Totals::kOfRow ? *totals : T(0);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T x[kMaxStates] = {};
    if constexpr (kActive > 0) x[0] = x0[i];
    if constexpr (kActive > 1) x[1] = x1[i];
    if constexpr (kActive > 2) x[2] = x2[i];
    if constexpr (kActive > 3) x[3] = x3[i];
    T value = Format::template load<T>(p[i]);
    T total = of_row;
    if constexpr (kTotals == Totals::kOfEach) total = totals[i];
    step_element<Rule, T>(f, s, Format::template load<T>(g[i]), value, x, total);
    p[i] = Format::template store<T>(value);
    if constexpr (kActive > 0) x0[i] = x[0];
    if constexpr (kActive > 1) x1[i] = x[1];
    if constexpr (kActive > 2) x2[i] = x[2];
    if constexpr (kActive > 3) x3[i] = x[3];
    if constexpr (kEma) ema[i] += f.ema_weight * (value - ema[i]);
  }
}

template <class Rule, class T>
static inline Prepared<Rule, T> prepare_task(const Task& task) {
  const TensorArgs& t = *task.tensor;
  const auto& constants = *reinterpret_cast<const typename Rule::template Constants<T>*>(task.constants[sizeof(T) == 8].bytes);
  const unsigned present = t.present_states();
  return prepare<Rule, T>(*task.common, constants, *task.layout,
                          {task.index, t.lr, t.weight_decay, t.numel, t.rows, t.cols, present, t.scalars});
}

// What `update` gets of the totals of a row.
template <class Rule, class T>
static inline T row_total(const Task& task, const typename Rule::template Scalars<T>& scalars, int64_t row) {
  if constexpr (has_segment_values<Rule>()) {
    return Rule::template segment_value<T>(scalars, task.segment_totals + row * product_count<Rule>());
  } else {
    return T(task.segment_totals[row]);
  }
}

// What `update` gets for elements [begin, begin + n) of the totals of their rows or columns.
template <class Rule, class T>
static inline void segment_totals(const Task& task, const typename Rule::template Scalars<T>& scalars, int64_t begin, int n,
                                  T* __restrict out) {
  const int64_t cols = task.tensor->cols;
  if constexpr (has_segment_values<Rule>()) {
    int64_t row = begin / cols, col = begin - row * cols;
    for (int i = 0; i < n; ++row, col = 0) {
      const int64_t left = cols - col;
      const int stop = left < n - i ? i + int(left) : n;
      const T value = row_total<Rule, T>(task, scalars, row);
      for (; i < stop; ++i) out[i] = value;
    }
  } else {
    spread_totals<T>(task.axis, cols, task.segment_totals, begin, n, out);
  }
}

// Elements [begin, begin + n), of one row where the step goes by rows. `totals` has room for the totals of a tile.
template <class Rule, class T, int kActive, bool kEma, class Format>
static inline void step_range(const Task& task, const Prepared<Rule, T>& prepared, bool by_rows, int64_t begin, int64_t n,
                              typename Format::Storage* p, const typename Format::Storage* g, T* const* states, T* ema,
                              T* totals) {
  const auto step = [&]<Totals kTotals>(std::integral_constant<Totals, kTotals>) {
    step_tile<Rule, T, kActive, kEma, kTotals, Format>(prepared.frame, prepared.scalars, n, p, g, states, ema, totals);
  };
  if constexpr (!uses_segments<Rule>()) {
    step(std::integral_constant<Totals, Totals::kNone>());
  } else if (by_rows) {
    totals[0] = row_total<Rule, T>(task, prepared.scalars, begin / task.tensor->cols);
    step(std::integral_constant<Totals, Totals::kOfRow>());
  } else {
    segment_totals<Rule, T>(task, prepared.scalars, begin, int(n), totals);
    step(std::integral_constant<Totals, Totals::kOfEach>());
  }
}

// See map_codes.h. Out of line: its buffers are not on the stack of the other maps.
template <class Rule, int kActive, class Constants>
__attribute__((noinline)) static void codes_range(const Task& task, const Prepared<Rule, float>& prepared, int64_t begin,
                                                  int64_t end) {
  CodesMap<Rule, kActive, Constants> map(task, prepared);
  for (int64_t i = begin; i < end; i += kTile) map(i, int(end - i < kTile ? end - i : kTile));
}

template <class Rule, class T, int kActive, bool kEma>
static void map_range(const Task& task, int64_t begin, int64_t end) {
  constexpr bool kSegments = uses_segments<Rule>();
  constexpr int kBuffers = 4 + kActive;
  alignas(64) T buffers[kBuffers][kTile];
  alignas(64) uint32_t random[kTile];
  const TensorArgs& t = *task.tensor;
  const CommonArgs& common = *task.common;
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  const bool is_fresh = fresh<Rule, T>(prepared.scalars);
  if constexpr (sizeof(T) == sizeof(float) && kActive > 0 && !kEma && !kSegments && steps_vectors<Rule>()) {
    if constexpr (kActive == 2 && has_moments<Rule>()) {
      const Moments<float> moments = Rule::moments(prepared.scalars);
      if (!is_fresh && cpu::step_moments(task, prepared.frame, moments, uint32_t(prepared.context.step), begin, end)) return;
    }
    if (!is_fresh && has_codes<FourBits>(task, kActive, prepared.frame)) {
      return codes_range<Rule, kActive, FourBits>(task, prepared, begin, end);
    }
    if (!is_fresh && has_codes<DynamicBytes>(task, kActive, prepared.frame)) {
      return codes_range<Rule, kActive, DynamicBytes>(task, prepared, begin, end);
    }
  }

  const ParamStream<T> param(t, common, uint32_t(prepared.context.step), buffers[0], buffers[1], random);
  const TileStream<T> grad = make_stream<T>(t.grad, t.grad_dtype, buffers[2]);
  const TileStream<T> ema = make_stream<T>(t.ema, t.ema_dtype, buffers[3]);
  StateStream<T> states[kActive > 0 ? kActive : 1];
  bool states_direct = true;
  for (int k = 0; k < kActive; ++k) {
    states[k] = StateStream<T>(t, common, k, uint32_t(prepared.context.step), buffers[4 + k], random,
                               task.new_scales != nullptr ? task.new_scales[k] : nullptr);
    states_direct = states_direct && states[k].direct();
  }
  // Rows that are long enough are stepped one by one: what is made of a row's total is then made once.
  constexpr int kLongRow = 64;
  const bool by_rows = kSegments && states_direct && task.axis == Axis::kRow && t.cols >= kLongRow;
  // Parameters and gradients in bfloat16 are converted by the step itself: it is as fast as with float32, where a detour by
  // buffers takes half as long again.
  constexpr bool kMayHalve = sizeof(T) == sizeof(float) && !kEma;
  const bool halves =
      kMayHalve && param.is_plain(DType::kBFloat16) && t.grad_dtype == DType::kBFloat16 && (!kSegments || by_rows);
  const bool direct =
      states_direct && (halves || (param.direct && grad.direct)) && (!kEma || ema.direct) && (!kSegments || by_rows);
  alignas(64) T totals[kSegments ? kTile : 1];

  for (int64_t i = begin, n = 0; i < end; i += n) {
    n = end - i;
    if (by_rows) n = std::min(n, t.cols - i % t.cols);
    if (!direct) n = std::min<int64_t>(n, kTile);
    const int tile = int(n);  // meaningful where a stream is not direct, and then at most kTile
    T* x[kMaxStates] = {};
    for (int k = 0; k < kActive; ++k) x[k] = states[k].open(i, tile, !is_fresh);
    if (halves) {
      if constexpr (kMayHalve) {
        step_range<Rule, T, kActive, false, formats::BFloat16>(
            task, prepared, by_rows, i, n, static_cast<uint16_t*>(t.param) + i, at<uint16_t>(t.grad, i), x, nullptr, totals);
      }
    } else {
      T* p = param.open(i, tile);
      const T* g = grad.open(i, tile, true);
      T* e = kEma ? ema.open(i, tile, true) : nullptr;
      step_range<Rule, T, kActive, kEma, Native<T>>(task, prepared, by_rows, i, n, p, g, x, e, totals);
      param.close(i, tile, p);
      if (kEma) ema.close(i, tile);
    }
    for (int k = 0; k < kActive; ++k) states[k].measure(tile);
    for (int k = 0; k < kActive; ++k) states[k].close(i, tile);
  }
}

template <class Rule, class T, int kActive>
static void map_active(const Task& task, int64_t begin, int64_t end) {
  if (task.tensor->ema != nullptr) {
    map_range<Rule, T, kActive, true>(task, begin, end);
  } else {
    map_range<Rule, T, kActive, false>(task, begin, end);
  }
}

template <class Rule, class T>
static void map_typed(const Task& task, int64_t begin, int64_t end) {
  constexpr int kRequired = required_state_count<Rule>(), kAll = state_count<Rule>();
  if constexpr (kRequired < kAll) {
    static_assert(kAll - kRequired == 1, "at most one optional state");
    if (task.tensor->states[kAll - 1] != nullptr) return map_active<Rule, T, kAll>(task, begin, end);
  }
  map_active<Rule, T, kRequired>(task, begin, end);
}

template <class Rule>
static void map_task(const Task& task, int64_t begin, int64_t end) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    map_typed<Rule, double>(task, begin, end);
  } else {
    map_typed<Rule, float>(task, begin, end);
  }
}

// Elements [begin, end) of a tensor, stepped in buffers only.
template <class Rule, int kActive>
static void maxima_range(const Task& task, int64_t begin, int64_t end, uint32_t* const* maxima) {
  constexpr bool kSegments = uses_segments<Rule>();
  alignas(64) float buffers[4 + kActive][kTile];
  const TensorArgs& t = *task.tensor;
  const CommonArgs& common = *task.common;
  const Prepared<Rule, float> prepared = prepare_task<Rule, float>(task);
  const bool is_fresh = fresh<Rule, float>(prepared.scalars);
  const ParamStream<float> param(t, common, 0, buffers[0], buffers[1], nullptr);
  const TileStream<float> grad = make_stream<float>(t.grad, t.grad_dtype, buffers[2]);
  alignas(64) float totals[kSegments ? kTile : 1];
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    const float* stored = param.open(i, n);
    if (stored != buffers[0]) std::copy(stored, stored + n, buffers[0]);
    float* x[kMaxStates] = {};
    for (int k = 0; k < kActive; ++k) {
      x[k] = buffers[4 + k];
      if (is_fresh) continue;
      if (t.state_dtypes[k] == DType::kCodes) {
        decode_state(t, common.state_formats[k], k, i, n, x[k]);
      } else {
        decode<float>(t.state_dtypes[k], t.states[k], i, n, x[k]);
      }
    }
    if constexpr (kSegments) segment_totals<Rule, float>(task, prepared.scalars, i, n, totals);
    step_tile<Rule, float, kActive, false, kSegments ? Totals::kOfEach : Totals::kNone, formats::Float32>(
        prepared.frame, prepared.scalars, n, buffers[0], grad.open(i, n, true), x, nullptr, totals);
    for (int k = 0; k < kActive; ++k) {
      if (maxima[k] != nullptr) raise_scales(matrix_scales(common.state_formats[k], t.rows, t.cols), i, n, x[k], maxima[k]);
    }
  }
}

template <class Rule>
static void maxima_task(const Task& task, int64_t begin, int64_t end, uint32_t* const* maxima) {
  constexpr int kRequired = required_state_count<Rule>(), kAll = state_count<Rule>();
  if constexpr (kRequired < kAll) {
    if (task.tensor->states[kAll - 1] != nullptr) return maxima_range<Rule, kAll>(task, begin, end, maxima);
  }
  maxima_range<Rule, kRequired>(task, begin, end, maxima);
}

}  // namespace momentum::cpu::MOMENTUM_ISA
