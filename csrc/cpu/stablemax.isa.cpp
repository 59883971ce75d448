#include "cpu/stablemax.h"

#include <limits>

#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

constexpr int kLanes = 64;

// The sum of the activations of a tile: in 64 lanes of at most four terms, the lanes in double.
template <class T>
double sum_tile(const T* __restrict x, int n) {
  T lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += stablemax::activation(x[i + j]);
  }
  for (int j = 0; i + j < n; ++j) lanes[j] += stablemax::activation(x[i + j]);
  double total = 0;
  for (int j = 0; j < kLanes; ++j) total += double(lanes[j]);
  return total;
}

template <class T>
const T* open_tile(const StableMaxCall& c, int64_t begin, int n, T* buffer) {
  if (c.dtype == native_dtype<T>()) return static_cast<const T*>(c.logits) + begin;
  decode<T>(c.dtype, c.logits, begin, n, buffer);
  return buffer;
}

template <class T>
double logit(const StableMaxCall& c, int64_t i) {
  T value;
  return double(*open_tile<T>(c, i, 1, &value));
}

template <class T>
void loss_rows(const StableMaxCall& c, int64_t begin, int64_t end) {
  T buffer[kTile];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = stablemax::target_of(c, row), first = row * c.classes;
    double rest = y == stablemax::kInvalid ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    for (int64_t j = 0; y >= 0 && j < c.classes; j += kTile) {
      const int n = int(c.classes - j < kTile ? c.classes - j : kTile);
      const T* x = open_tile<T>(c, first + j, n, buffer);
      if (y >= j && y < j + n) {  // the target is left out: s(-inf) = 0
        if (x != buffer) {
          for (int i = 0; i < n; ++i) buffer[i] = x[i];
        }
        buffer[y - j] = -std::numeric_limits<T>::infinity();
        x = buffer;
      }
      rest += sum_tile(x, n);
    }
    c.rest[row] = rest;
    static_cast<T*>(c.losses)[row] = T(y >= 0 ? stablemax::loss(rest, logit<T>(c, first + y)) : rest);
  }
}

template <class T>
void grad_rows(const StableMaxCall& c, int64_t begin, int64_t end) {
  T buffer[kTile], grads[kTile];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = stablemax::target_of(c, row), first = row * c.classes;
    const double grad = double(static_cast<const T*>(c.losses)[row]);
    const double at_target = y >= 0 ? logit<T>(c, first + y) : 0.0;
    const auto scale = stablemax::row_gradient<T>(grad, c.rest[row], at_target);
    for (int64_t j = 0; j < c.classes; j += kTile) {
      const int n = int(c.classes - j < kTile ? c.classes - j : kTile);
      if (y == stablemax::kIgnored) {
        for (int i = 0; i < n; ++i) grads[i] = T(0);
      } else {
        const T* __restrict x = open_tile<T>(c, first + j, n, buffer);
        for (int i = 0; i < n; ++i) grads[i] = scale.others * stablemax::slope(x[i]);
        if (y >= j && y < j + n) grads[y - j] = scale.own;
      }
      encode<T>(c.dtype, c.grad, first + j, n, grads);
    }
  }
}

}  // namespace

void stablemax_loss(const StableMaxCall& c, int64_t begin, int64_t end) {
  c.dtype == DType::kFloat64 ? loss_rows<double>(c, begin, end) : loss_rows<float>(c, begin, end);
}

void stablemax_grad(const StableMaxCall& c, int64_t begin, int64_t end) {
  c.dtype == DType::kFloat64 ? grad_rows<double>(c, begin, end) : grad_rows<float>(c, begin, end);
}

}  // namespace momentum::cpu::MOMENTUM_ISA
