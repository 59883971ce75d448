// Several sums per segment in one pass over the elements, on the CPU: operands and sums in double, which makes the products of
// two float32 numbers exact. 16 lanes add beside each other, in registers where the rule makes its operands in vectors, and
// meet once per range.
#pragma once

#include "cpu/measure.h"

namespace momentum::cpu::MOMENTUM_ISA {

inline constexpr int kProductLanes = 16;
template <int kWidth>
using ProductLanes = double[kWidth][kProductLanes];

template <class Rule, class T>
constexpr bool has_product_vectors() {
  return std::is_same_v<T, float>&&
    requires(const typename Rule::template Scalars<float> & scalars, Floats v, const Floats * states, Doubles * out)
  {
    Rule::template products<float>(scalars, v, v, states, out);
  };
}

// Elements [0, n), n a multiple of kProductLanes.
template <class Rule, class Streams>
static inline void add_product_vectors(const Prepared<Rule, float>& prepared, const Streams& streams, int n,
                                       ProductLanes<product_count<Rule>()>& lanes) {
  constexpr int kWidth = product_count<Rule>(), kStates = state_count<Rule>(), kVectors = kProductLanes / kVector;
  const Frame<float> frame = prepared.frame;
  const auto scalars = prepared.scalars;
  Doubles sums[kWidth][kVectors];
  std::memcpy(sums, lanes, sizeof(sums));
  for (int i = 0; i < n; i += kProductLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int at = i + v * kVector;
      Floats x[kMaxStates] = {};
      for (int s = 0; s < kStates; ++s) x[s] = load_ahead(streams.x[s] + at);
      Doubles out[kWidth];
      products<Rule, float>(frame, scalars, load_ahead(streams.g + at), load_ahead(streams.p + at), x, out);
#pragma GCC unroll 8
      for (int w = 0; w < kWidth; ++w) sums[w][v] += out[w];
    }
  }
  std::memcpy(lanes, sums, sizeof(sums));
}

template <class Rule, class T, class Streams>
static inline void add_products(const Prepared<Rule, T>& prepared, const Streams& streams, int n,
                                ProductLanes<product_count<Rule>()>& lanes) {
  constexpr int kWidth = product_count<Rule>(), kStates = state_count<Rule>();
  int first = 0;
  if constexpr (has_product_vectors<Rule, T>()) {
    first = n - n % kProductLanes;
    add_product_vectors<Rule>(prepared, streams, first, lanes);
  }
  const Frame<T> frame = prepared.frame;
  const auto scalars = prepared.scalars;
  const T *g = streams.g, *p = streams.p, *x[kMaxStates] = {streams.x[0], streams.x[1], streams.x[2], streams.x[3]};
  for (int i = first; i < n; i += kProductLanes) {
    const int count = n - i < kProductLanes ? n - i : kProductLanes;
#pragma GCC ivdep
    for (int j = 0; j < count; ++j) {
      T state[kMaxStates] = {};
      for (int s = 0; s < kStates; ++s) state[s] = x[s][i + j];
      double out[kWidth];
      products<Rule, T>(frame, scalars, g[i + j], p[i + j], state, out);
      for (int w = 0; w < kWidth; ++w) lanes[w][j] += out[w];
    }
  }
}

// `count` ranges of `length` elements, one after another from `begin` on: rows, or one range of a tensor.
template <class Rule, class T>
static void products_typed(const Task& task, int64_t begin, int64_t length, int64_t count, double* out) {
  constexpr int kWidth = product_count<Rule>();
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  MeasureTile<Rule, T> tile(task, prepared, 0);
  for (int64_t range = 0; range < count; ++range, begin += length, out += kWidth) {
    alignas(64) ProductLanes<kWidth> lanes = {};
    for (int64_t i = 0; i < length; i += kTile) {
      const int n = int(length - i < kTile ? length - i : kTile);
      add_products<Rule, T>(prepared, tile.open(begin + i, n), n, lanes);
    }
    for (int w = 0; w < kWidth; ++w) {
      for (int width = kProductLanes / 2; width > 0; width /= 2) {
        for (int j = 0; j < width; ++j) lanes[w][j] += lanes[w][j + width];
      }
      out[w] = lanes[w][0];
    }
  }
}

template <class Rule>
static void products_task(const Task& task, int64_t begin, int64_t length, int64_t count, double* out) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    products_typed<Rule, double>(task, begin, length, count, out);
  } else {
    products_typed<Rule, float>(task, begin, length, count, out);
  }
}

// Calls use(constants, context) in the tensor's arithmetic type.
template <class Rule, class Use>
static void with_context(const Task& task, Use&& use) {
  const auto go = [&]<class T>(T) {
    const auto& constants =
        *reinterpret_cast<const typename Rule::template Constants<T>*>(task.constants[sizeof(T) == 8].bytes);
    use(constants, prepare_task<Rule, T>(task).context);
  };
  if (task.tensor->param_dtype == DType::kFloat64) {
    go(double());
  } else {
    go(float());
  }
}

template <class Rule>
static void summarize_task(const Task& task, const double* segments, double* sums) {
  with_context<Rule>(task, [&]<class T>(const auto& constants, const TensorContext<T>& context) {
    for (int j = 0; j < sum_count<Rule>(); ++j) sums[j] = 0;
    for (int64_t row = 0; row < task.tensor->rows; ++row) {
      double out[sum_count<Rule>()];
      Rule::template summarize<T>(constants, context, segments + row * product_count<Rule>(), out);
      for (int j = 0; j < sum_count<Rule>(); ++j) sums[j] += out[j];
    }
  });
}

template <class Rule>
static void settle_task(const Task& task, double* sums) {
  with_context<Rule>(task, [&]<class T>(const auto& constants, const TensorContext<T>& context) {
    settle<Rule, T>(constants, context, sums);
  });
}

}  // namespace momentum::cpu::MOMENTUM_ISA
