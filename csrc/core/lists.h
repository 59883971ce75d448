// Operations over lists of tensors that are no step of an optimizer: what one element does, from streams to streams.
//
// An operation is plain data with
//   kStreams                 streams of a tensor; the first decides the arithmetic type
//   kNoise                   whether it may draw a normal number per element, of Philox words as in core/normal.h
//   reads(), writes()        streams as bits; the others are not touched
//   prepare<T>()             its numbers in the arithmetic type, on the device
//   element(scalars, z, x)   one element in place; z is its noise
#pragma once

#include <cstdint>
#include <vector>

#include "core/call.h"
#include "core/math.h"
#include "core/normal.h"

namespace momentum::lists {

inline constexpr int kMaxStreams = 3;

struct Tensors {
  void* streams[kMaxStreams] = {};
  DType dtypes[kMaxStreams] = {};
  int64_t numel = 0;
};

template <class Op>
struct Call {
  Op op;
  std::vector<Tensors> tensors;
};

// p += alpha (p - previous), and with `roll` previous becomes the old p.
struct Extrapolate {
  static constexpr int kStreams = 2;
  static constexpr bool kNoise = false;
  double alpha = 0;
  bool roll = true;

  template <class T>
  struct Scalars {
    T alpha;
  };
  MOMENTUM_HD unsigned reads() const { return 3u; }
  MOMENTUM_HD unsigned writes() const { return roll ? 3u : 1u; }
  template <class T>
  MOMENTUM_HD Scalars<T> prepare() const {
    return {T(alpha)};
  }
  template <class T>
  MOMENTUM_HD static void element(const Scalars<T>& s, T, T* x) {
    const T p = x[0];
    x[0] = p + s.alpha * (p - x[1]);
    x[1] = p;
  }
};

// Zeroth-order steps: x0 = max(origin + c z, floor), where the origin is the original x1, or x0 itself, which then is kept in
// x1. z is x2, or drawn. c is `size`; with losses l at both sides, -lr clip((l0 - l1) / (2 size)).
struct Move {
  static constexpr int kStreams = 3;
  static constexpr bool kNoise = true;
  double size = 0, lr = 0, clip = 0, floor = -__builtin_huge_val();
  const void* losses = nullptr;  // two, or null
  bool wide_losses = false;      // float64
  bool save = false, draw = true;
  uint64_t seed = 0;
  uint32_t step = 0;

  template <class T>
  struct Scalars {
    T c, floor;
    bool save, draw;
  };
  MOMENTUM_HD unsigned reads() const { return (save ? 1u : 2u) | (draw ? 0u : 4u); }
  MOMENTUM_HD unsigned writes() const { return save ? 3u : 1u; }
  MOMENTUM_HD double loss(int i) const {
    return wide_losses ? static_cast<const double*>(losses)[i] : double(static_cast<const float*>(losses)[i]);
  }
  template <class T>
  MOMENTUM_HD Scalars<T> prepare() const {
    double c = size;
    if (losses != nullptr) {
      double slope = (loss(0) - loss(1)) / (2 * size);
      slope = slope > clip ? clip : slope < -clip ? -clip : slope;  // NaN stays
      c = -lr * slope;
    }
    return {T(c), T(floor), save, draw};
  }
  template <class T>
  MOMENTUM_HD static void element(const Scalars<T>& s, T z, T* x) {
    const T origin = s.save ? x[0] : x[1];
    const T moved = math::fma(s.c, s.draw ? z : x[2], origin);
    x[0] = moved < s.floor ? s.floor : moved;
    x[1] = origin;
  }
};

// Every tensor of a list draws from a key of its own.
MOMENTUM_HD uint64_t tensor_seed(uint64_t seed, uint32_t index) { return seed + uint64_t(index) * 0x9E3779B97F4A7C15u; }

}  // namespace momentum::lists
