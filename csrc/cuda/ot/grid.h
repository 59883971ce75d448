// One transport problem on the whole GPU: what its kernels share.
//
// The cost is read in strips of rows, one block each. A thread owns every 256th column: it adds to the columns' partial sums
// without meeting others, and strips are added in order, so that nothing depends on the schedule.
#pragma once

#include "core/math.h"
#include "core/ot/problem.h"
#include "cuda/ot/costs.h"
#include "cuda/ot/reduce.h"
#include "cuda/table.h"

namespace momentum::cuda::ot {

inline constexpr int kBlock = 256;
inline constexpr int kStripRows = 32;
inline constexpr int kTotals = 4;  // numbers that a kernel's blocks add up together, at most
using momentum::ot::kLengths;      // of a line search: all are tried in one read of the cost

// One side of the problem, rows or columns, in device memory.
struct Lines {
  double* marginal;
  double* log2_marginal;
  double* potential;
  double* sum;
  double* step;
  double* rise;      // of rows: by how much the last sweep raised them; of columns: see `reach_kernel`
  double* bound;     // log2 of what entries are compared with
  double* next_sum;  // [kLengths][size]
  int64_t* begin;    // [size + 1] of the sparse plan
  int* index;        // [capacity]
  double* value;
  int size;
};

// What kernels tell each other and the host.
enum Number {
  kMass,
  kLow,
  kHigh,
  kInvalid,
  kForbidden,
  kUnreached,
  kError,
  kLargest,  // |u| + |v|
  kSlope,
  kLinear,
  kGrowth,  // of the largest exponent along the direction
  kKept,    // entries of the sparse plan
  kTheta,   // log2 of its threshold
  kCg,
  kActive,  // of conjugate gradients, as are those up to kMean: another step is wanted
  kAlpha,
  kBeta,
  kResidual,  // residual . preconditioned residual
  kEnough,    // of the residual's square
  kProject,   // the matrix is singular: residuals are kept orthogonal to the constants
  kPresent,   // lines that have mass
  kMean,
  kAccepted,
  kValue,
  kShortage,       // of rows by their rise
  kOtherShortage,  // by their potentials
  kNumbers
};

struct Grid {
  Lines rows, columns;
  double* partial;    // [kLengths][strips][columns]
  double* row_terms;  // [strips][columns]: exponentials of a row, where shared memory has no room
  int* counts;        // [strips][columns]
  int* row_counts;    // [rows]
  double* workspace;  // [6][larger side]
  double* totals;     // [kTotals][blocks]: parts of what all blocks of a kernel add up
  uint32_t* ticket;   // 0 between kernels
  double* numbers;    // [kNumbers]
  double k;
  int64_t capacity;
  int strips;
  bool on_chip;  // terms and partial sums of a strip are in shared memory
};

__device__ __forceinline__ bool kept(const Grid& grid, double exponent, int i, int j, double log2_theta) {
  const double row = grid.rows.bound[i], column = grid.columns.bound[j];
  return exponent >= (row < column ? row : column) + log2_theta;
}

// body(row) for the rows of this block's strip that have mass.
template <class Body>
__device__ __forceinline__ void for_strip(const Grid& grid, Body&& body) {
  const int begin = int(blockIdx.x) * kStripRows;
  const int end = begin + kStripRows < grid.rows.size ? begin + kStripRows : grid.rows.size;
  for (int i = begin; i < end; ++i) {
    if (grid.rows.marginal[i] > 0) body(i);
  }
}

template <class Body>
__device__ __forceinline__ void for_own(int size, Body&& body) {
  for (int j = int(threadIdx.x); j < size; j += int(blockDim.x)) body(j);
}

// Adds up the first kSums terms of all threads of all blocks, and finds the largest of the others: parts by block first, in an
// order of their own then. True in the block that comes last, which alone has the results.
template <int kSums, int kAll>
__device__ __forceinline__ bool complete(const Grid& grid, double (&terms)[kAll]) {
  static_assert(kAll <= kTotals);
  __shared__ double meeting[33];
  const int blocks = int(gridDim.x);
  MOMENTUM_UNROLL
  for (int q = 0; q < kAll; ++q) {
    const double part = q < kSums ? block_sum(terms[q], meeting) : block_max(terms[q], meeting);
    if (threadIdx.x == 0) grid.totals[int64_t(q) * blocks + blockIdx.x] = part;
  }
  if (!arrive(grid.ticket, uint32_t(blocks))) return false;
  MOMENTUM_UNROLL
  for (int q = 0; q < kAll; ++q) {
    double all = q < kSums ? 0 : -kHuge;
    for_own(blocks, [&](int block) {
      const double part = __ldcg(grid.totals + int64_t(q) * blocks + block);
      all = q < kSums ? all + part : math::max(all, part);
    });
    terms[q] = q < kSums ? block_sum(all, meeting) : block_max(all, meeting);
  }
  if (threadIdx.x == 0) atomicExch(grid.ticket, 0u);
  return true;
}

}  // namespace momentum::cuda::ot
