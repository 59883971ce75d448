// What the transport solver needs of an instruction set: loops over one row of the cost, and the sparse Newton system.
#pragma once

#include <cstdint>

namespace momentum::cpu::ot {

// An m-entry row of the cost, in float or double.
struct Row {
  const void* data;
  bool is_double;
};

struct RowScan {
  double low, high;  // of the finite entries; +inf, -inf without any
  bool invalid;      // NaN or -inf
  bool forbidden;    // +inf
};

// One half of the sparse plan S in compressed rows.
struct Sparse {
  const int64_t* begin;  // [rows + 1]
  const int32_t* index;
  const double* value;
  int64_t rows;
};

// (diag(outer) - S diag(1 / inner) S^T) d = rhs, by conjugate gradients with the diagonal as preconditioner.
struct System {
  Sparse rows, columns;  // S, and S^T
  const double* outer;   // [rows.rows]
  const double* inner;   // [columns.rows]
  const double* rhs;
  double* d;          // [rows.rows] out
  double* workspace;  // [5 * rows.rows + columns.rows]
  double tolerance;   // of the residual's norm, relative to that of rhs
  int limit;
  bool project;  // nothing was dropped: the matrix is singular, its null vector is constant
};

inline constexpr int64_t kTogether = 4;  // rows that are added up in one walk over the sums

struct Kernels {
  // p_j = 2^(u + v_j - k c_j); returns the sum. Entries whose exponent is NaN or below -1022 are 0.
  double (*exponentials)(Row row, int64_t m, double k, double u, const double* v, double* p);
  // `count` plans in one read: p_aj = 2^(u_a + v_aj - k c_j), v being [count][m]. Adds p_aj to columns_aj; the sums over j go
  // to rows_a. The count is 1 or kLengths - 1.
  void (*sums)(Row row, int64_t m, double k, int count, const double* u, const double* v, double* rows, double* columns);
  // The largest v_j - k c_j; -inf where there is none.
  double (*maximum)(Row row, int64_t m, double k, const double* v);
  // out += scale_0 * p_0 + ..., in order, for rows p [count][m].
  void (*add)(int64_t m, int64_t count, const double* scale, const double* p, double* out);
  // Entries with u + v_j - k c_j >= log2_theta + min(log2_row, log2_column_j): columns and values, in order. Returns how many.
  int64_t (*emit)(Row row, int64_t m, double k, double u, const double* v, double log2_theta, double log2_row,
                  const double* log2_column, int32_t* index, double* value);
  // Only entries with v_j > -inf count.
  RowScan (*scan)(Row row, int64_t m, const double* v);
  // out_j = |x - y_j|^2, or its root; y is [d][m].
  void (*distances)(const double* x, const double* y, int64_t m, int64_t d, bool root, double* out);
  // S x for rows [begin, end) of S.
  void (*multiply)(const Sparse& s, const double* x, int64_t begin, int64_t end, double* out);
  int (*solve)(const System& system);
};

const Kernels& kernels();

}  // namespace momentum::cpu::ot
