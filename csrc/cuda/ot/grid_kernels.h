// Kernels for one transport problem on the whole GPU.
//
// The cost is read in strips of rows, one block each. A thread owns every 256th column: it adds to the columns' partial sums
// without meeting others, and strips are added in order, so that nothing depends on the schedule. A sweep reads the cost once:
// the exponentials of a row stay on chip until their sum is known, are scaled by it and added to the columns.
#pragma once

#include "core/math.h"
#include "core/ot/problem.h"
#include "cuda/ot/costs.h"
#include "cuda/ot/reduce.h"

namespace momentum::cuda::ot {

inline constexpr int kBlock = 256;
inline constexpr int kSolveBlock = 512;
inline constexpr int kStripRows = 32;
inline constexpr int kLengths = 4;  // step lengths of a line search, tried in one read of the cost

// One side of the problem, rows or columns, in device memory.
struct Lines {
  double* marginal;
  double* log2_marginal;
  double* potential;
  double* sum;
  double* step;
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
  kUnreached,
  kError,
  kLargest,  // |u| + |v|
  kSlope,
  kLinear,
  kKept,   // entries of the sparse plan
  kTheta,  // log2 of its threshold
  kCg,
  kAccepted,
  kValue,
  kNumbers
};

struct Grid {
  Lines rows, columns;
  double* partial;    // [kLengths][strips][columns]
  double* row_terms;  // [strips][columns]: exponentials of a row, where shared memory has no room
  int* counts;        // [strips][columns]
  int* row_counts;    // [rows]
  double* workspace;  // [5][larger side]
  double* numbers;    // [kNumbers]
  double k;
  int64_t capacity;
  int strips;
  bool on_chip;  // terms and partial sums of a strip are in shared memory
};

struct Lengths {
  double alpha[kLengths];
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

// Masses, logarithms; b is scaled to the mass of a. One block.
__global__ void __launch_bounds__(kBlock) marginals_kernel(const Grid __grid_constant__ grid) {
  __shared__ double meeting[33];
  const auto sum_of = [&](const Lines& side, auto&& term) {
    double sum = 0;
    for_own(side.size, [&](int l) { sum += term(side.marginal[l]); });
    return block_sum(sum, meeting);
  };
  const auto itself = [](double x) { return x; };
  const auto wrong = [](double x) { return x >= 0 && x < kHuge ? 0.0 : 1.0; };
  const double mass = sum_of(grid.rows, itself), mass_b = sum_of(grid.columns, itself);
  const double bad = sum_of(grid.rows, wrong) + sum_of(grid.columns, wrong);
  const bool invalid = bad > 0 || !(math::abs(mass - mass_b) <= 1e-5 * mass);
  for_own(grid.rows.size, [&](int i) { grid.rows.log2_marginal[i] = ::log2(grid.rows.marginal[i]); });
  for_own(grid.columns.size, [&](int j) {
    if (!invalid && mass > 0) grid.columns.marginal[j] *= mass / mass_b;
    grid.columns.log2_marginal[j] = ::log2(grid.columns.marginal[j]);
  });
  if (threadIdx.x == 0) {
    grid.numbers[kMass] = mass;
    grid.numbers[kInvalid] = invalid ? 1 : 0;
  }
}

// Smallest and largest finite cost of a strip, whether it holds NaN or -inf, and which columns it reaches.
template <class Costs>
__global__ void __launch_bounds__(kBlock) scan_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  __shared__ double meeting[33];
  double low = kHuge, high = -kHuge, invalid = 0, unreached = 0;
  int* reached = grid.counts + int64_t(blockIdx.x) * grid.columns.size;
  for_own(grid.columns.size, [&](int j) { reached[j] = 0; });
  for_strip(grid, [&](int i) {
    bool some = false;
    for_own(grid.columns.size, [&](int j) {
      if (!(grid.columns.marginal[j] > 0)) return;
      const double c = cost(i, j);
      if (!(c > -kHuge)) invalid = 1;
      if (c > -kHuge && c < kHuge) {
        low = c < low ? c : low;
        high = c > high ? c : high;
        reached[j] = 1;
        some = true;
      }
    });
    if (__syncthreads_or(some ? 1 : 0) == 0) unreached = 1;
  });
  double* out = grid.partial + int64_t(blockIdx.x) * 4;
  const double smallest = -block_max(-low, meeting), largest = block_max(high, meeting);
  const double bad = block_max(invalid, meeting), lost = block_max(unreached, meeting);
  if (threadIdx.x == 0) {
    out[0] = smallest;
    out[1] = largest;
    out[2] = bad;
    out[3] = lost;
  }
}

__global__ void __launch_bounds__(kBlock) scan_finish_kernel(const Grid __grid_constant__ grid) {
  __shared__ double meeting[33];
  double low = kHuge, high = -kHuge, invalid = grid.numbers[kInvalid], unreached = 0;
  for_own(grid.strips, [&](int s) {
    const double* strip = grid.partial + int64_t(s) * 4;
    low = strip[0] < low ? strip[0] : low;
    high = strip[1] > high ? strip[1] : high;
    invalid = strip[2] > 0 ? 1 : invalid;
    unreached = strip[3] > 0 ? 1 : unreached;
  });
  for_own(grid.columns.size, [&](int j) {
    bool reached = !(grid.columns.marginal[j] > 0);
    for (int s = 0; s < grid.strips && !reached; ++s) reached = grid.counts[int64_t(s) * grid.columns.size + j] > 0;
    if (!reached) unreached = 1;
  });
  const double smallest = -block_max(-low, meeting), largest = block_max(high, meeting);
  const double bad = block_max(invalid, meeting), lost = block_max(unreached, meeting);
  if (threadIdx.x == 0) {
    grid.numbers[kLow] = smallest;
    grid.numbers[kHigh] = largest;
    grid.numbers[kInvalid] = bad;
    grid.numbers[kUnreached] = lost;
  }
}

// Potentials of the product measure, or those of another temperature.
__global__ void __launch_bounds__(kBlock)
    temperature_kernel(const Grid __grid_constant__ grid, bool start, double offset, double factor) {
  const int line = int(blockIdx.x * blockDim.x + threadIdx.x);
  const bool is_row = line < grid.rows.size;
  const Lines& side = is_row ? grid.rows : grid.columns;
  const int l = is_row ? line : line - grid.rows.size;
  if (l >= side.size) return;
  if (start) {
    side.potential[l] = side.log2_marginal[l] + offset;
  } else if (side.marginal[l] > 0) {
    side.potential[l] = momentum::ot::rescale(side.potential[l], side.log2_marginal[l], factor);
  }
}

// The column update, a thread for each. Sums that underflowed are made again: a second read of those columns alone.
template <class Costs>
__global__ void __launch_bounds__(kBlock)
    columns_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x);
  const Lines& columns = grid.columns;
  if (j >= columns.size || !(columns.marginal[j] > 0)) return;
  const double sum = columns.sum[j];
  if (sum > kSmallestSum && sum < kLargestSum) {
    columns.potential[j] += ::log2(columns.marginal[j] / sum);
    return;
  }
  double top = -kHuge, total = 0;
  for (int i = 0; i < grid.rows.size; ++i) {
    const double exponent = grid.rows.potential[i] - grid.k * cost(i, j);
    top = exponent > top ? exponent : top;
  }
  for (int i = 0; i < grid.rows.size; ++i) {
    total += power<typename Costs::Type>((grid.rows.potential[i] - top) - grid.k * cost(i, j));
  }
  columns.potential[j] = columns.log2_marginal[j] - (top + ::log2(total));
}

// Row updates and the columns' sums after them, in one read of the cost.
template <class Costs>
__global__ void __launch_bounds__(kBlock) sweep_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost) {
  using T = typename Costs::Type;
  __shared__ double meeting[33];
  const int m = grid.columns.size;
  double* out = grid.partial + int64_t(blockIdx.x) * m;
  double* terms = grid.on_chip ? simt::dynamic_shared<double>() : grid.row_terms + int64_t(blockIdx.x) * m;
  double* sums = grid.on_chip ? terms + m : out;
  const double* v = grid.columns.potential;
  for_own(m, [&](int j) { sums[j] = 0; });
  for_strip(grid, [&](int i) {
    const auto exponentiate = [&](double u) {
      double sum = 0;
      for_own(m, [&](int j) {
        terms[j] = power<T>((v[j] + u) - grid.k * cost(i, j));
        sum += terms[j];
      });
      return block_sum(sum, meeting);
    };
    double u = grid.rows.potential[i];
    double sum = exponentiate(u);
    if (!(sum > kSmallestSum && sum < kLargestSum)) {
      double top = -kHuge;
      for_own(m, [&](int j) {
        const double exponent = v[j] - grid.k * cost(i, j);
        top = exponent > top ? exponent : top;
      });
      u = -block_max(top, meeting);
      sum = exponentiate(u);
    }
    const double scale = grid.rows.marginal[i] / sum;
    for_own(m, [&](int j) { sums[j] += scale * terms[j]; });
    if (threadIdx.x == 0) grid.rows.potential[i] = u + ::log2(scale);
  });
  if (grid.on_chip) for_own(m, [&](int j) { out[j] = sums[j]; });
}

// Sums of rows and columns of the plan at `kCount` points along the direction, in one read of the cost. A thread adds up its
// column of the strip in registers, a warp its part of a row.
template <class Costs, int kCount>
__global__ void __launch_bounds__(kBlock, 1)
    evaluate_kernel(const Grid __grid_constant__ grid, const Costs __grid_constant__ cost, const Lengths __grid_constant__ at) {
  using T = typename Costs::Type;
  constexpr int kWarps = kBlock / 32;
  __shared__ double parts[kCount][kWarps][kStripRows];
  const int m = grid.columns.size, lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int first = int(blockIdx.x) * kStripRows;
  for_own(kCount * kWarps * kStripRows, [&](int e) { (&parts[0][0][0])[e] = 0; });
  __syncthreads();
  for (int base = 0; base < m; base += kBlock) {
    const int j = base + int(threadIdx.x);
    const double v = j < m ? grid.columns.potential[j] : 0, dv = j < m ? momentum::ot::kLog2e * grid.columns.step[j] : 0;
    double sums[kCount] = {};
    for_strip(grid, [&](int i) {
      const double u = grid.rows.potential[i], du = momentum::ot::kLog2e * grid.rows.step[i];
      const double c = j < m ? grid.k * cost(i, j) : 0;
      MOMENTUM_UNROLL
      for (int a = 0; a < kCount; ++a) {
        double p = j < m ? power<T>(((v + at.alpha[a] * dv) + (u + at.alpha[a] * du)) - c) : 0;
        sums[a] += p;
        for (int offset = 16; offset > 0; offset /= 2) p += __shfl_xor_sync(0xffffffffu, p, offset);
        if (lane == 0) parts[a][warp][i - first] += p;
      }
    });
    MOMENTUM_UNROLL
    for (int a = 0; a < kCount; ++a) {
      if (j < m) grid.partial[(int64_t(a) * grid.strips + blockIdx.x) * m + j] = sums[a];
    }
  }
  __syncthreads();
  for_own(kCount * kStripRows, [&](int e) {
    const int a = e / kStripRows, row = e % kStripRows;
    if (first + row >= grid.rows.size) return;
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += parts[a][w][row];
    grid.rows.next_sum[int64_t(a) * grid.rows.size + first + row] = sum;
  });
}

// Adds the strips' columns, in order: length blockIdx.y of the search.
__global__ void __launch_bounds__(kBlock) add_columns_kernel(const Grid __grid_constant__ grid) {
  const int j = int(blockIdx.x * blockDim.x + threadIdx.x), m = grid.columns.size;
  if (j >= m) return;
  double sum = 0;
  for (int s = 0; s < grid.strips; ++s) sum += grid.partial[(int64_t(blockIdx.y) * grid.strips + s) * m + j];
  grid.columns.next_sum[int64_t(blockIdx.y) * m + j] = sum;
}

// Takes the sums over (rows' own after a sweep are their marginals), and measures. One block.
__global__ void __launch_bounds__(kBlock) measure_kernel(const Grid __grid_constant__ grid, bool after_sweep) {
  __shared__ double meeting[33];
  double error = 0, u = 0, v = 0;
  const auto measure = [&](const Lines& side, bool exact, double& largest) {
    for_own(side.size, [&](int l) {
      if (!(side.marginal[l] > 0)) {
        side.sum[l] = 0;
        return;
      }
      side.sum[l] = exact ? side.marginal[l] : side.next_sum[l];
      error += math::abs(side.sum[l] - side.marginal[l]);
      largest = math::max(largest, math::abs(side.potential[l]));
    });
  };
  measure(grid.rows, after_sweep, u);
  measure(grid.columns, false, v);
  const double total = block_sum(error, meeting);
  const double largest = block_max(u, meeting) + block_max(v, meeting);
  if (threadIdx.x == 0) {
    grid.numbers[kError] = total;
    grid.numbers[kLargest] = largest;
  }
}

// The regularised cost, from the dual. One block.
__global__ void __launch_bounds__(kBlock) value_kernel(const Grid __grid_constant__ grid, double reg) {
  __shared__ double meeting[33];
  double value = 0;
  const auto add = [&](const Lines& side) {
    for_own(side.size, [&](int l) {
      const double x = side.marginal[l];
      if (x > 0) value += momentum::ot::kLn2 * x * (side.potential[l] - side.log2_marginal[l]);
    });
  };
  add(grid.rows);
  add(grid.columns);
  for_own(grid.rows.size, [&](int i) { value -= grid.rows.sum[i]; });
  const double total = block_sum(value, meeting);
  if (threadIdx.x == 0) grid.numbers[kValue] = reg * (grid.numbers[kMass] + total);
}

}  // namespace momentum::cuda::ot
