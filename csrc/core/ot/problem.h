// Entropic optimal transport: what a solver is asked, and what it answers. Host and device.
//
//   maximise  F(x, y) = a.x + b.y - sum_ij P_ij,    P_ij = exp(x_i + y_j - C_ij / reg)
//
// x and y are the potentials over reg. Everything inside works with base-2 exponents, u = x log2(e), v = y log2(e) and
// k = log2(e) / reg, so that P_ij = 2^(u_i + v_j - k C_ij) with nothing premultiplied. At the maximum P has the marginals a, b.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/math.h"

namespace momentum::ot {

inline constexpr double kLog2e = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

enum class Status : int32_t {
  kConverged = 0,       // marginal error <= tol
  kMaxSweeps = 1,       // the budget of reads of the cost is spent
  kPrecisionFloor = 2,  // rounding of potentials and exponents forbids a smaller error
  kInfeasible = 3,      // forbidden entries: every plan misses the marginals by more than tol
  kInvalid = 4,         // NaN or -inf in the cost, a negative or infinite marginal, marginals of different mass
};

enum class Method : int32_t { kSinkhorn = 0, kNewton = 1, kAuto = 2 };
enum class CostKind : int32_t { kMatrix = 0, kSquaredEuclidean = 1, kEuclidean = 2 };

struct Options {
  double reg = 1;
  double tol = 1e-9;  // L1 error of both marginals, relative to the mass
  int64_t max_sweeps = 10000;
  Method method = Method::kAuto;
  int64_t newton_limit = -1;  // Newton steps after this many are rejected, whatever they bring; < 0: none is
};

struct Outcome {
  double error = 0;  // relative to the mass
  double value = 0;
  Status status = Status::kConverged;
  int32_t sweeps = 0;  // reads of the cost in which every entry is exponentiated
  int32_t newton = 0;  // accepted Newton steps
  int32_t rejected = 0;
  int32_t cg = 0;  // steps of conjugate gradients, all Newton steps together
};

// Facts of the input, from one read of the cost. Entries whose row or column has no mass do not count.
struct Scan {
  double cost_min = 0, cost_max = 0;  // of the finite entries
  double mass = 0;                    // of a; b is scaled to it
  bool invalid = false;
  bool forbidden = false;   // some entries are infinite
  bool infeasible = false;  // a row or a column has no others
};

// What became of one Newton step.
struct Step {
  bool accepted = false;
  double error = 0;
  int32_t reads = 0;   // with exponentials
  int32_t points = 0;  // at which the plan was summed: several in one read
  int32_t cg = 0;
  int64_t kept = 0;  // entries of the sparse plan
};

MOMENTUM_HD double log2_of(double x) {
#if defined(__CUDA_ARCH__)
  return ::log2(x);
#else
  return __builtin_log2(x);
#endif
}

// Lengths of a line search, longest first, where the direction raises the largest exponent by `growth`. A full step is nearly
// always taken: where exponentials cost more than reads it is tried alone, and the others in one read of the cost if it is
// refused. F is generalised self-concordant, and log(1 + growth) / growth is the length at which a Newton step ascends whatever
// the distance from the optimum (Sun, Tran-Dinh: "Generalized self-concordant functions", Math. Program. 2019). It matters
// where groups of rows and columns hang together by entries of 1e-12: directions are then 1e6 long.
inline constexpr int kLengths = 4;
MOMENTUM_HD double step_length(int which, double growth) {
  if (which == 0) return 1;
  const double safe = growth > 9 ? log2_of(1 + growth) / (kLog2e * growth) : 0.25;
  return which == 1 ? math::sqrt(safe) : which == 2 ? safe : safe / 16;
}

// Whether a step of length alpha is taken. `slope` is F's derivative along the direction, `gain` the difference of F, computed
// from the differences of its parts so that it is exact to rounding of the mass. Near the optimum both are of the order of
// error^2 and drown; there the error itself decides.
MOMENTUM_HD bool accepts(double alpha, double slope, double gain, double error_before, double error_after, double mass) {
  if (!(error_after < 4 * mass)) return false;  // also NaN: the exponentials overflowed
  if (alpha * slope > 1e-11 * mass) return gain >= 1e-4 * alpha * slope;
  return error_after < error_before && gain >= -1e-12 * mass;
}

// What rounding can make of a sum of `count` numbers and the differences of their parts, relative to their absolute values.
MOMENTUM_HD double sums_rounding(int64_t count) { return double(count) * 0x1p-52; }

// Potentials follow the temperature in the measure a x b: log2 P - log2 a - log2 b is what scales with k. Rows keep sums
// between a_i and about 1, however small a_i is.
MOMENTUM_HD double rescale(double potential, double log2_marginal, double factor) {
  return log2_marginal + (potential - log2_marginal) * factor;
}

}  // namespace momentum::ot
