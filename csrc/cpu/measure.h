// What reductions read: tiles of a tensor's streams in the arithmetic type, and what a reduction makes of each element.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/prepare.h"
#include "cpu/kernels.h"
#include "cpu/map.h"
#include "cpu/stream.h"
#include "cpu/vector_math.h"

namespace momentum::cpu::MOMENTUM_ISA {

// Whether the operands of a rule's reductions are made a vector at a time, of numbers of type T.
template <class Rule, class T>
constexpr bool measures_vectors() {
  return std::is_same_v<T, float>&&
    requires(const typename Rule::template Scalars<float> & scalars, Floats v, const Floats * states)
  {
    Rule::template measure<float>(0, scalars, v, v, states);
  };
}

// A pass that only reads is bound by how many lines a core waits for at a time. The second-level cache can wait for more of
// them than the first: asking it for those to come makes such a pass a fifth to a half faster. Beyond a tensor's end that is
// harmless.
static inline Floats load_ahead(const float* from) {
  constexpr int kAhead = 4096 / sizeof(float);
  __builtin_prefetch(from + kAhead, 0, 2);
  return load<Floats>(from);
}

// The streams that reduction k reads, for elements [begin, begin + n), n <= kTile, at a time.
template <class Rule, class T>
class MeasureTile {
 public:
  struct Streams {
    const T *g, *p, *x[kMaxStates];
  };

  MeasureTile(const Task& task, const Prepared<Rule, T>& prepared, int k)
      : task_(task),
        prepared_(prepared),
        param_(*task.tensor, *task.common, 0, buffers_[0], buffers_[2 + kMaxStates], nullptr),
        k_(k),
        reads_param_(reductions_read_param<Rule>() || prepared.frame.l2 != T(0)) {
    const bool own = k < reduction_count<Rule>();
    const bool is_fresh = fresh<Rule, T>(prepared.scalars);
    for (int s = 0; s < kStates; ++s) {
      reads_state_[s] = task.tensor->states[s] != nullptr && !is_fresh && (!own || (reduction_reads<Rule>() >> s & 1u) != 0);
      if (!reads_state_[s]) std::fill_n(buffers_[2 + s], kTile, T(0));
    }
  }

  Streams open(int64_t begin, int n) {
    const TensorArgs& t = *task_.tensor;
    Streams streams{};
    streams.g = open(t.grad, t.grad_dtype, buffers_[1], begin, n);
    streams.p = reads_param_ ? param_.open(begin, n) : streams.g;
    for (int s = 0; s < kStates; ++s) streams.x[s] = reads_state_[s] ? open_state(s, begin, n) : buffers_[2 + s];
    return streams;
  }

  // What reduction k makes of elements [first, n) of the streams, which begin at `begin`.
  void fill(const Streams& streams, int64_t begin, int first, int n, T* __restrict out) {
    const T *g = streams.g, *p = streams.p;
    const T* x[kMaxStates] = {streams.x[0], streams.x[1], streams.x[2], streams.x[3]};
    const Frame<T> frame = prepared_.frame;
    const auto scalars = prepared_.scalars;
    const int reduction = k_;
    if constexpr (has_segment_values<Rule>()) segment_totals<Rule, T>(task_, scalars, begin, n, values_);
#pragma GCC ivdep
    for (int i = first; i < n; ++i) {
      T state[kMaxStates] = {};
      for (int s = 0; s < kStates; ++s) state[s] = x[s][i];
      T value = T(1);
      if constexpr (has_segment_values<Rule>()) value = values_[i];
      out[i - first] = measure<Rule, T>(reduction, frame, scalars, g[i], p[i], state, value);
    }
  }

  bool reads_param() const { return reads_param_; }
  bool reads_states() const {
    return std::any_of(reads_state_, reads_state_ + kStates, [](bool reads) { return reads; });
  }

  // A vector of the same, of an own reduction of a rule that measures_vectors. kParam, kAnyState: what is read beside the
  // gradient; what is not read is zero.
  template <bool kParam, bool kAnyState>
  Floats vector(const Streams& streams, int i) const {
    Floats x[kMaxStates] = {};
    if constexpr (kAnyState) {
      for (int s = 0; s < kStates; ++s) x[s] = load_ahead(streams.x[s] + i);
    }
    Floats g = load_ahead(streams.g + i), p = {};
    if constexpr (kParam) {
      p = load_ahead(streams.p + i);
      g = effective_gradient(prepared_.frame, g, p);
    } else {
      g *= prepared_.frame.grad_factor;
    }
    return Rule::template measure<float>(k_, prepared_.scalars, g, p, x);
  }

 private:
  static constexpr int kStates = state_count<Rule>();

  // Of a quantised state all blocks that the range touches are decoded.
  const T* open_state(int s, int64_t begin, int n) {
    const TensorArgs& t = *task_.tensor;
    if constexpr (sizeof(T) == sizeof(float)) {
      if (t.state_dtypes[s] == DType::kCodes) {
        const StateFormat& format = task_.common->state_formats[s];
        const int64_t first = begin / format.block * format.block;
        const int64_t past = (begin + n + format.block - 1) / format.block * format.block;
        decode_state(t, format, s, first, int((past < t.numel ? past : t.numel) - first), blocks_[s]);
        return blocks_[s] + (begin - first);
      }
    }
    return open(t.states[s], t.state_dtypes[s], buffers_[2 + s], begin, n);
  }

  static const T* open(const void* base, DType dtype, T* buffer, int64_t begin, int n) {
    if (dtype == native_dtype<T>()) return at<T>(base, begin);
    decode<T>(dtype, base, begin, n, buffer);
    return buffer;
  }

  const Task& task_;
  const Prepared<Rule, T>& prepared_;
  T buffers_[3 + kMaxStates][kTile];  // not initialised: clearing them would cost more than a short row
  T blocks_[kMaxStates][kTile + 2 * kLargestBlock];
  T values_[has_segment_values<Rule>() ? kTile : 1];
  const ParamStream<T> param_;
  const int k_;
  const bool reads_param_;
  bool reads_state_[kMaxStates] = {};
};

}  // namespace momentum::cpu::MOMENTUM_ISA
