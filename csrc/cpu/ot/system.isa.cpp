// The sparse Newton system on the CPU.
//
// With the plan's true row and column sums r, c and its large entries S, a Newton step solves
//     [diag(r)  S; S^T  diag(c)] (dx, dy) = (a - r, b - c).
// Because the sums are those of the whole plan, the matrix is positive definite as soon as one entry is dropped. Eliminating dy
// leaves half the unknowns and a tenth of the iterations.
#include "cpu/ot/table.h"

namespace momentum::cpu::ot::MOMENTUM_ISA {
namespace {

double dot(int64_t n, const double* x, const double* y) {
  constexpr int kWays = 16;
  double ways[kWays] = {};
  int64_t i = 0;
  for (; i + kWays <= n; i += kWays) {
    for (int q = 0; q < kWays; ++q) ways[q] += x[i + q] * y[i + q];
  }
  double total = 0;
  for (; i < n; ++i) total += x[i] * y[i];
  for (int q = 0; q < kWays; ++q) total += ways[q];
  return total;
}

// Over the rows that have mass; the others are 0 and stay so.
void subtract_mean(int64_t n, const double* outer, double* x) {
  double total = 0, count = 0;
  for (int64_t i = 0; i < n; ++i) {
    total += x[i];
    count += outer[i] > 0 ? 1 : 0;
  }
  const double mean = total / count;
  for (int64_t i = 0; i < n; ++i) x[i] -= outer[i] > 0 ? mean : 0;
}

}  // namespace

void multiply(const Sparse& s, const double* __restrict x, int64_t begin, int64_t end, double* __restrict out) {
  for (int64_t i = begin; i < end; ++i) {
    double total[4] = {};
    int64_t e = s.begin[i];
    const int64_t last = s.begin[i + 1];
    for (; e + 4 <= last; e += 4) {
      for (int q = 0; q < 4; ++q) total[q] += s.value[e + q] * x[s.index[e + q]];
    }
    for (; e < last; ++e) total[0] += s.value[e] * x[s.index[e]];
    out[i] = (total[0] + total[1]) + (total[2] + total[3]);
  }
}

int solve(const System& system) {
  const int64_t n = system.rows.rows, m = system.columns.rows;
  double* inverse = system.workspace;  // of the diagonal
  double* residual = inverse + n;
  double* z = residual + n;
  double* p = z + n;
  double* q = p + n;
  double* middle = q + n;  // [m]
  const double* outer = system.outer;

  // A row without mass has neither entries nor a right-hand side, and stays at 0.
  for (int64_t i = 0; i < n; ++i) {
    double diagonal = outer[i];
    for (int64_t e = system.rows.begin[i]; e < system.rows.begin[i + 1]; ++e) {
      const double value = system.rows.value[e];
      diagonal -= value * value / system.inner[system.rows.index[e]];
    }
    const double least = 1e-8 * outer[i];
    inverse[i] = outer[i] > 0 ? 1 / (diagonal > least ? diagonal : least) : 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    system.d[i] = 0;
    residual[i] = system.rhs[i];
  }
  if (system.project) subtract_mean(n, outer, residual);
  for (int64_t i = 0; i < n; ++i) p[i] = inverse[i] * residual[i];
  double rz = dot(n, residual, p);
  const double enough = system.tolerance * system.tolerance * dot(n, residual, residual);

  int steps = 0;
  while (steps < system.limit && dot(n, residual, residual) > enough) {
    multiply(system.columns, p, 0, m, middle);
    for (int64_t j = 0; j < m; ++j) middle[j] = system.inner[j] > 0 ? middle[j] / system.inner[j] : 0;
    multiply(system.rows, middle, 0, n, q);
    for (int64_t i = 0; i < n; ++i) q[i] = outer[i] * p[i] - q[i];
    const double curvature = dot(n, p, q);
    if (!(curvature > 0)) break;
    const double alpha = rz / curvature;
    for (int64_t i = 0; i < n; ++i) {
      system.d[i] += alpha * p[i];
      residual[i] -= alpha * q[i];
    }
    if (system.project) subtract_mean(n, outer, residual);
    for (int64_t i = 0; i < n; ++i) z[i] = inverse[i] * residual[i];
    const double next = dot(n, residual, z);
    const double beta = next / rz;
    for (int64_t i = 0; i < n; ++i) p[i] = z[i] + beta * p[i];
    rz = next;
    ++steps;
  }
  return steps;
}

}  // namespace momentum::cpu::ot::MOMENTUM_ISA
