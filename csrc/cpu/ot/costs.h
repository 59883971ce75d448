// Rows of the cost of one problem, from a matrix or computed from points.
#pragma once

#include <cmath>
#include <vector>

#include "core/ot/batch.h"
#include "cpu/ot/kernels.h"

namespace momentum::cpu::ot {

class Costs {
 public:
  Costs(const Kernels& kernels, const momentum::ot::Cost& cost, int64_t problem)
      : kernels_(kernels), cost_(cost), offset_(cost.shared ? 0 : problem) {
    if (of_points()) {
      if (cost.is_double) {
        copy_points<double>();
      } else {
        copy_points<float>();
      }
    }
  }

  int64_t n() const { return cost_.n; }
  int64_t m() const { return cost_.m; }
  bool of_points() const { return cost_.kind != momentum::ot::CostKind::kMatrix; }

  // Row i; `scratch` holds m doubles and is used for points.
  Row row(int64_t i, double* scratch) const {
    if (of_points()) {
      kernels_.distances(x_.data() + i * cost_.d, y_.data(), cost_.m, cost_.d, euclidean(), scratch);
      return {scratch, true};
    }
    const int64_t begin = (offset_ * cost_.n + i) * cost_.m;
    if (cost_.is_double) return {static_cast<const double*>(cost_.matrix) + begin, true};
    return {static_cast<const float*>(cost_.matrix) + begin, false};
  }

  double at(int64_t i, int64_t j) const {
    if (of_points()) {
      double total = 0;
      for (int64_t t = 0; t < cost_.d; ++t) {
        const double difference = x_[i * cost_.d + t] - y_[t * cost_.m + j];
        total += difference * difference;
      }
      return euclidean() ? std::sqrt(total) : total;
    }
    const int64_t at = (offset_ * cost_.n + i) * cost_.m + j;
    return cost_.is_double ? static_cast<const double*>(cost_.matrix)[at] : double(static_cast<const float*>(cost_.matrix)[at]);
  }

 private:
  bool euclidean() const { return cost_.kind == momentum::ot::CostKind::kEuclidean; }

  // x as it is, y with a row per coordinate, so that a row of costs is made of whole vectors.
  template <class T>
  void copy_points() {
    const auto* x = static_cast<const T*>(cost_.x) + offset_ * cost_.n * cost_.d;
    const auto* y = static_cast<const T*>(cost_.y) + offset_ * cost_.m * cost_.d;
    x_.assign(x, x + cost_.n * cost_.d);
    y_.resize(cost_.m * cost_.d);
    for (int64_t j = 0; j < cost_.m; ++j) {
      for (int64_t t = 0; t < cost_.d; ++t) y_[t * cost_.m + j] = double(y[j * cost_.d + t]);
    }
  }

  const Kernels& kernels_;
  momentum::ot::Cost cost_;
  int64_t offset_;
  std::vector<double> x_, y_;
};

}  // namespace momentum::cpu::ot
