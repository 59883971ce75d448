// Entries of the cost on the device, and their exponentials.
#pragma once

#include "core/bits.h"
#include "core/math.h"
#include "core/ot/batch.h"
#include "cuda/simt.h"

namespace momentum::cuda::ot {

template <class T>
struct Matrix {
  using Type = T;
  const T* data;
  int64_t columns;

  MOMENTUM_HD static Matrix of(const momentum::ot::Cost& cost, int64_t problem) {
    const T* all = static_cast<const T*>(cost.matrix);
    return {cost.shared ? all : all + problem * cost.n * cost.m, cost.m};
  }
  __device__ double operator()(int i, int j) const { return double(data[i * columns + j]); }
};

// Differences are squared, never the expansion of the square: it would lose the digits that 1 / reg magnifies.
template <class T>
struct Cloud {
  using Type = T;
  const T* x;
  const T* y;
  int d;
  bool root;

  MOMENTUM_HD static Cloud of(const momentum::ot::Cost& cost, int64_t problem) {
    const T* x = static_cast<const T*>(cost.x);
    const T* y = static_cast<const T*>(cost.y);
    const int64_t k = cost.shared ? 0 : problem;
    return {x + k * cost.n * cost.d, y + k * cost.m * cost.d, int(cost.d), cost.kind == momentum::ot::CostKind::kEuclidean};
  }
  __device__ double operator()(int i, int j) const {
    double total = 0;
    for (int t = 0; t < d; ++t) {
      const double difference = double(x[int64_t(i) * d + t]) - double(y[int64_t(j) * d + t]);
      total += difference * difference;
    }
    return root ? math::sqrt(total) : total;
  }
};

// 2^x; 0 below 2^-1022 and for NaN. For float costs the remainder of the exponent, in [-1/2, 1/2], is exponentiated in float:
// relative error 2^-22, at the exponent range of double.
template <class T>
__device__ __forceinline__ double power(double x) {
  if (!(x > -1022.0)) return 0;
  x = x < 1023.0 ? x : 1023.0;
  if constexpr (sizeof(T) == 8) {
    return ::exp2(x);
  } else {
    const double whole = ::rint(x);
    const double fraction = double(::exp2f(float(x - whole)));
    return bit_cast<double>(bit_cast<int64_t>(fraction) + (int64_t(whole) << 52));
  }
}

}  // namespace momentum::cuda::ot
