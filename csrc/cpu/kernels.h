// What the CPU driver needs of a rule: a table of functions, built once per instruction set.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "core/prepare.h"

namespace momentum::cpu {

// Large enough for the Constants of any rule; checked where the tables are built.
inline constexpr int kConstantsSize = 320;

struct alignas(16) ConstantsStorage {
  unsigned char bytes[kConstantsSize];
};

// One tensor of a call, as a kernel sees it.
struct Task {
  const CommonArgs* common;
  const TensorArgs* tensor;
  const ConstantsStorage* constants;  // [2]: for float and for double arithmetic
  const TotalsLayout* layout;
  const double* segment_totals;  // totals of this tensor's rows or columns, for rules that use them in the map
  int64_t index;
  Axis axis;  // of the segments
  // States with the scales of a matrix: those that the map stores. They are the maxima of the new state, found before.
  float* const* new_scales = nullptr;  // [kMaxStates]
};

struct Kernels {
  // Constants for float and for double arithmetic.
  void (*constants)(const CommonArgs&, ConstantsStorage* two);
  // Elements [begin, end) of the map.
  void (*map)(const Task&, int64_t begin, int64_t end);
  // What the map would make of elements [begin, end) of the states with the scales of a matrix, without storing it: raises
  // `maxima[k]`, the scales of state k as bits.
  void (*maxima)(const Task&, int64_t begin, int64_t end, uint32_t* const* maxima);
  // The totals of reduction k over `count` ranges of `length` elements each, one after another from `begin` on.
  void (*reduce)(const Task&, int k, int64_t begin, int64_t length, int64_t count, double* out);
  // Rows [row_begin, row_end) of columns [begin, end) of reduction k, into totals[0 .. end - begin).
  void (*reduce_columns)(const Task&, int k, int64_t row_begin, int64_t row_end, int64_t begin, int64_t end, double* totals);
  void (*finalize)(const Task&, int k, double total);
  // Of rules with products: the sums over such ranges, `width` numbers each; a tensor's sums out of those of its segments; what
  // is read of them. Null for others.
  void (*products)(const Task&, int64_t begin, int64_t length, int64_t count, double* sums);
  void (*summarize)(const Task&, const double* segments, double* sums);
  void (*settle)(const Task&, double* sums);
  // Of rules that select: adds to the counts of pass k for elements [begin, end); of a tensor's complete counts, the digit.
  void (*select)(const Task&, int k, int64_t begin, int64_t end, uint64_t* counts);
  void (*choose)(const Task&, int k, double* counts);
  ReduceOp (*reduce_op)(int k, const double* hypers);
  Axis (*reduce_axis)(int k, const double* hypers);
  int (*width)(int k);  // numbers that reduction k makes for a segment
  int reductions;       // the rule's own
};

}  // namespace momentum::cpu
