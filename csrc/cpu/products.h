// Several sums per segment in one pass over the elements, on the CPU: operands and sums in double, which makes the products of
// two float32 numbers exact. 32 lanes add beside each other and meet once per range.
#pragma once

#include "cpu/reduce.h"

namespace momentum::cpu::MOMENTUM_ISA {

inline constexpr int kProductLanes = 32;

// All streams have the arithmetic type here.
template <class Rule, class T>
static inline void add_products(const Prepared<Rule, T>& prepared, const T* g, const T* p, const T* const* states, int n,
                                double (*__restrict lanes)[kProductLanes]) {
  constexpr int kWidth = product_count<Rule>(), kStates = state_count<Rule>();
  const Frame<T> frame = prepared.frame;
  const auto scalars = prepared.scalars;
  const T* x[kMaxStates] = {states[0], states[1], states[2], states[3]};
  for (int i = 0; i < n; i += kProductLanes) {
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

template <class Rule, class T>
static void products_typed(const Task& task, int64_t begin, int64_t end, double* sums) {
  constexpr int kWidth = product_count<Rule>();
  const Prepared<Rule, T> prepared = prepare_task<Rule, T>(task);
  MeasureTile<Rule, T> tile(task, prepared, 0);
  alignas(64) double lanes[kWidth][kProductLanes] = {};
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    const auto streams = tile.open_all(i, n);
    add_products<Rule, T>(prepared, streams.g, streams.p, streams.x, n, lanes);
  }
  for (int w = 0; w < kWidth; ++w) {
    for (int width = kProductLanes / 2; width > 0; width /= 2) {
      for (int j = 0; j < width; ++j) lanes[w][j] += lanes[w][j + width];
    }
    sums[w] = lanes[w][0];
  }
}

template <class Rule>
static void products_task(const Task& task, int64_t begin, int64_t end, double* sums) {
  if (task.tensor->param_dtype == DType::kFloat64) {
    products_typed<Rule, double>(task, begin, end, sums);
  } else {
    products_typed<Rule, float>(task, begin, end, sums);
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
