// One problem in one block: facts of the input, sweeps, and what is made of the potentials.
#pragma once

#include "cuda/ot/block.h"

namespace momentum::cuda::ot {

template <class Costs>
__device__ momentum::ot::Scan BlockMachine<Costs>::scan() {
  momentum::ot::Scan result;
  const auto wrong = [](double x) { return !(x >= 0 && x < kHuge) ? 1.0 : 0.0; };
  mass = result.mass = total(rows, [&](int i) { return rows.marginal[i]; });
  const double mass_b = total(columns, [&](int j) { return columns.marginal[j]; });
  const double bad = total(rows, [&](int i) { return wrong(rows.marginal[i]); }) +
                     total(columns, [&](int j) { return wrong(columns.marginal[j]); });
  // Marginals that were normalised in float32 differ by about its rounding.
  result.invalid = bad > 0 || !(math::abs(mass - mass_b) <= 1e-5 * mass);
  if (result.invalid || mass == 0) return result;
  for_lines(columns, [&](int j) {
    columns.marginal[j] *= mass / mass_b;
    columns.log2_marginal[j] = ::log2(columns.marginal[j]);
  });
  for_lines(rows, [&](int i) { rows.log2_marginal[i] = ::log2(rows.marginal[i]); });
  __syncthreads();
  double low = kHuge, high = -kHuge, invalid = 0, unreached = 0, forbidden = 0;
  for_lines(rows, [&](int i) {
    if (!(rows.marginal[i] > 0)) return;
    bool reached = false;
    for (int j = 0; j < columns.size; ++j) {
      const double c = cost(i, j);
      const bool counts = columns.marginal[j] > 0, finite = counts && c > -kHuge && c < kHuge;
      if (counts && !(c > -kHuge)) invalid = 1;
      if (counts && c >= kHuge) forbidden = 1;
      if (finite) {
        low = c < low ? c : low;
        high = c > high ? c : high;
        reached = true;
      }
    }
    if (!reached) unreached = 1;
  });
  for_lines(columns, [&](int j) {
    if (!(columns.marginal[j] > 0)) return;
    bool reached = false;
    for (int i = 0; i < rows.size && !reached; ++i) reached = rows.marginal[i] > 0 && cost(i, j) < kHuge;
    if (!reached) unreached = 1;
  });
  cost_min = result.cost_min = -block_max(-low, meeting);
  result.cost_max = block_max(high, meeting);
  result.invalid = block_max(invalid, meeting) > 0;
  result.forbidden = block_max(forbidden, meeting) > 0;
  result.infeasible = block_max(unreached, meeting) > 0;
  return result;
}

template <class Costs>
__device__ void BlockMachine<Costs>::start(double temperature) {
  k = temperature;
  fresh = true;
  for_lines(rows, [&](int i) { rows.potential[i] = rows.log2_marginal[i] + 0.5 * k * cost_min; });
  for_lines(columns, [&](int j) { columns.potential[j] = columns.log2_marginal[j] + 0.5 * k * cost_min; });
  __syncthreads();
}

template <class Costs>
__device__ void BlockMachine<Costs>::set_temperature(double temperature) {
  const double factor = temperature / k;
  k = temperature;
  fresh = true;
  const auto carry = [&](const Side& side) {
    for_lines(side, [&](int line) {
      if (side.marginal[line] > 0) {
        side.potential[line] = momentum::ot::rescale(side.potential[line], side.log2_marginal[line], factor);
      }
    });
  };
  carry(rows);
  carry(columns);
  __syncthreads();
}

template <class Costs>
__device__ double BlockMachine<Costs>::sweep() {
  if (!fresh) {
    for_lines(columns, [&](int j) {
      if (!(columns.marginal[j] > 0)) return;
      const double sum = columns.sum[j];
      if (sum > kSmallestSum && sum < kLargestSum) {
        columns.potential[j] += ::log2(columns.marginal[j] / sum);
      } else {
        columns.potential[j] = columns.log2_marginal[j] - log2_line_sum<false>(j, rows.potential, rows.size);
      }
    });
    __syncthreads();
  }
  for_lines(rows, [&](int i) {
    rows.sum[i] = rows.marginal[i];
    if (!(rows.marginal[i] > 0)) return;
    const double before = rows.potential[i];
    const double sum = line_sum<true>(i, before, columns.potential, columns.size);
    if (sum > kSmallestSum && sum < kLargestSum) {
      rows.potential[i] += ::log2(rows.marginal[i] / sum);
    } else {
      rows.potential[i] = rows.log2_marginal[i] - log2_line_sum<true>(i, columns.potential, columns.size);
    }
    rows.rise[i] = rows.potential[i] - before;
  });
  __syncthreads();
  fresh = false;
  return total(columns, [&](int j) {
    columns.sum[j] = columns.marginal[j] > 0 ? line_sum<false>(j, columns.potential[j], rows.potential, rows.size) : 0;
    return math::abs(columns.sum[j] - columns.marginal[j]);
  });
}

template <class Costs>
__device__ double BlockMachine<Costs>::verify() {
  fresh = false;
  for_lines(rows, [&](int i) {
    rows.sum[i] = rows.marginal[i] > 0 ? line_sum<true>(i, rows.potential[i], columns.potential, columns.size) : 0;
  });
  for_lines(columns, [&](int j) {
    columns.sum[j] = columns.marginal[j] > 0 ? line_sum<false>(j, columns.potential[j], rows.potential, rows.size) : 0;
  });
  return error();
}

// With S the rows whose `order` is at least t, N(S) is the columns where the largest order of the rows that reach them is. The
// largest a(S) - b(N(S)), over t of every row, that rounding cannot have made.
template <class Costs>
__device__ double BlockMachine<Costs>::shortage_of(const double* order) {
  double* top = columns.rise;
  for_lines(columns, [&](int j) {
    top[j] = -kHuge;
    if (!(columns.marginal[j] > 0)) return;
    for (int i = 0; i < rows.size; ++i) {
      if (rows.marginal[i] > 0 && cost(i, j) < kHuge) top[j] = math::max(top[j], order[i]);
    }
  });
  __syncthreads();
  double largest = 0;
  for_lines(rows, [&](int i) {
    if (!(rows.marginal[i] > 0)) return;
    double excess = 0;
    for (int l = 0; l < rows.size; ++l) excess += rows.marginal[l] > 0 && order[l] >= order[i] ? rows.marginal[l] : 0;
    for (int j = 0; j < columns.size; ++j) {
      excess -= columns.marginal[j] > 0 && top[j] >= order[i] ? columns.marginal[j] : 0;
    }
    largest = math::max(largest, excess);
  });
  const double rounding = momentum::ot::sums_rounding(rows.size + columns.size) * mass;
  return block_max(largest, meeting) - rounding;
}

template <class Costs>
__device__ double BlockMachine<Costs>::rounding() const {
  const auto largest = [&](const Side& side) {
    double best = 0;
    for_lines(side, [&](int l) {
      const double magnitude = side.marginal[l] > 0 ? math::abs(side.potential[l]) : 0;
      best = magnitude > best ? magnitude : best;
    });
    return block_max(best, meeting);
  };
  // Exponentials in float are themselves off by 2^-24 or so, each in its own direction.
  const double exponential = sizeof(T) == 4 ? 0x1p-27 : 0;
  return (exponential + 0x1p-54 * (largest(rows) + largest(columns))) * mass;
}

template <class Costs>
__device__ double BlockMachine<Costs>::value() const {
  const auto part = [&](const Side& side) {
    return total(side, [&](int l) {
      const double x = side.marginal[l];
      return x > 0 ? momentum::ot::kLn2 * x * (side.potential[l] - side.log2_marginal[l]) : 0.0;
    });
  };
  return reg * (mass - total(rows, [&](int i) { return rows.sum[i]; }) + part(rows) + part(columns));
}

template <class Costs>
__device__ void BlockMachine<Costs>::potentials(double* f, double* g) const {
  const double unit = reg * momentum::ot::kLn2;
  const auto scaled = [&](const Side& side, int l) {
    return side.marginal[l] > 0 ? unit * (side.potential[l] - side.log2_marginal[l]) : 0.0;
  };
  const double difference = total(rows, [&](int i) { return rows.marginal[i] * scaled(rows, i); }) -
                            total(columns, [&](int j) { return columns.marginal[j] * scaled(columns, j); });
  const double shift = difference / (2 * mass);
  for_lines(rows, [&](int i) { f[i] = rows.marginal[i] > 0 ? scaled(rows, i) - shift : 0; });
  for_lines(columns, [&](int j) { g[j] = columns.marginal[j] > 0 ? scaled(columns, j) + shift : 0; });
}

}  // namespace momentum::cuda::ot
