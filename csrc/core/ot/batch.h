// A batch of transport problems as a backend receives it: raw pointers to contiguous memory.
#pragma once

#include "core/ot/problem.h"

namespace momentum::ot {

// The costs of a batch. A matrix is [n, m] (or one for all problems); points are x [n, d] and y [m, d].
struct Cost {
  CostKind kind = CostKind::kMatrix;
  bool is_double = false;  // of the matrix or the points
  bool shared = false;     // one for all problems
  const void* matrix = nullptr;
  const void* x = nullptr;
  const void* y = nullptr;
  int64_t n = 0, m = 0, d = 0;
};

struct Batch {
  Cost cost;
  int64_t count = 1;
  const double* a = nullptr;    // [count, n]
  const double* b = nullptr;    // [count, m]
  const double* reg = nullptr;  // [count]; on the host
  double* f = nullptr;          // [count, n] out, in units of the cost
  double* g = nullptr;          // [count, m]
  double* numbers = nullptr;    // [count, 2]: value, error
  int32_t* counts = nullptr;    // [count, 5]: status, sweeps, Newton steps, rejected ones, CG steps
  Options options;
};

inline constexpr int kNumbers = 2, kCounts = 5;

MOMENTUM_HD void write_outcome(const Outcome& out, double* numbers, int32_t* counts) {
  numbers[0] = out.value;
  numbers[1] = out.error;
  counts[0] = int32_t(out.status);
  counts[1] = out.sweeps;
  counts[2] = out.newton;
  counts[3] = out.rejected;
  counts[4] = out.cg;
}

}  // namespace momentum::ot
