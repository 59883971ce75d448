// The reductions of a call: ranges that depend on the tensor alone, partial totals in parallel, then a fixed order.
#include <algorithm>
#include <mutex>
#include <vector>

#include "core/math.h"
#include "core/selection.h"
#include "cpu/passes.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kReduceRange = 16384;  // elements per partial total
constexpr int64_t kColumnRows = 4096;    // rows per partial total of a column
constexpr int64_t kColumnBlock = 1024;   // columns per piece of work

// A piece of a reduction: a range of elements of one segment, whole short segments, or a block of a column's rows.
struct Piece {
  int64_t tensor;
  int64_t begin, end;          // elements, rows of a group, or columns
  int64_t row_begin, row_end;  // columns only
  double* out;
};

}  // namespace

void Passes::reduce(int k) {
  set_completed(k);
  double* totals = new_totals(k);
  if (is_selection(k)) {
    select(k, totals);
  } else if (is_sums(k)) {
    sum_segments(totals);
  } else if (axis(k) == Axis::kColumn) {
    reduce_columns(k, totals);
  } else {
    reduce_contiguous(k, axis(k), totals);
  }
}

void Passes::reduce_ranges(const Task& work, int k, int64_t begin, int64_t length, int64_t count, double* out) const {
  if (is_products(k)) {
    kernels_.products(work, begin, length, count, out);
  } else {
    kernels_.reduce(work, k, begin, length, count, out);
  }
}

// Segments that are contiguous ranges: whole tensors or rows. Long ones are split, short ones grouped; both depend on the
// tensor alone, so a total never depends on what else is in the list or on the number of threads.
void Passes::reduce_contiguous(int k, Axis along, double* totals) {
  std::vector<Piece> pieces;
  const int each = width(k);
  int64_t partial_count = 0;
  const auto length_of = [&](const TensorArgs& t) { return along == Axis::kTensor ? t.numel : t.cols; };
  for (const TensorArgs& t : tensors_) {
    if (length_of(t) > kReduceRange)
      partial_count += segment_count(t, along) * ((length_of(t) + kReduceRange - 1) / kReduceRange);
  }
  std::vector<double> partials(partial_count * each);
  double* partial = partials.data();
  double* out = totals;
  for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) {
    const TensorArgs& t = tensors_[i];
    const int64_t length = length_of(t), count = segment_count(t, along);
    if (length > kReduceRange) {
      for (int64_t s = 0; s < count; ++s) {
        for (int64_t b = 0; b < length; b += kReduceRange, partial += each) {
          pieces.push_back({i, s * length + b, s * length + std::min(length, b + kReduceRange), 0, 0, partial});
        }
      }
    } else {
      const int64_t group = std::max<int64_t>(1, length > 0 ? kReduceRange / length : count);
      for (int64_t s = 0; s < count; s += group) {
        pieces.push_back({i, s, std::min(count, s + group), 0, -1, out + s * each});
      }
    }
    out += count * each;
  }
  parallel(int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const Piece& piece = pieces[p];
      const Task work = task(piece.tensor);
      if (piece.row_end == 0) {
        reduce_ranges(work, k, piece.begin, piece.end - piece.begin, 1, piece.out);
      } else {
        const int64_t length = length_of(*work.tensor);
        reduce_ranges(work, k, piece.begin * length, length, piece.end - piece.begin, piece.out);
      }
    }
  });
  partial = partials.data();
  out = totals;
  for (const TensorArgs& t : tensors_) {
    const int64_t length = length_of(t), count = segment_count(t, along);
    if (length > kReduceRange) {
      const int64_t parts = (length + kReduceRange - 1) / kReduceRange;
      for (int64_t s = 0; s < count; ++s) {
        double* total = out + s * each;
        std::fill_n(total, each, 0.0);
        for (int64_t b = 0; b < parts; ++b, partial += each) {
          for (int j = 0; j < each; ++j) {
            total[j] = op(k) == ReduceOp::kMax ? math::max(total[j], partial[j]) : total[j] + partial[j];
          }
        }
      }
    }
    out += count * each;
  }
}

// Of every tensor, out of what reduction 0 made of its segments.
void Passes::sum_segments(double* sums) {
  parallel(int64_t(tensors_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.summarize(task(i), segment_totals(i), sums + i * width(1));
    }
  });
}

// Threads count for themselves and add their counts, which are integers: their order does not matter.
void Passes::select(int k, double* totals) {
  const int each = width(k), bins = selection_bins(k);
  std::fill_n(totals, int64_t(tensors_.size()) * each, 0.0);
  std::vector<int64_t> units(1, 0);
  for (const TensorArgs& t : tensors_) units.push_back(units.back() + (t.numel + kReduceRange - 1) / kReduceRange);
  std::mutex merging;
  parallel(units.back(), 1, [&](int64_t begin, int64_t end) {
    size_t i = size_t(std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1);
    for (int64_t unit = begin; unit < end; ++i) {
      const int64_t last = std::min(end, units[i + 1]);
      if (unit == last) continue;
      std::vector<uint64_t> counts(size_t(bins), 0);
      kernels_.select(task(int64_t(i)), k, (unit - units[i]) * kReduceRange,
                      std::min((last - units[i]) * kReduceRange, tensors_[i].numel), counts.data());
      const std::lock_guard lock(merging);
      for (int b = 0; b < bins; ++b) totals[int64_t(i) * each + b] += double(counts[size_t(b)]);
      unit = last;
    }
  });
}

void Passes::reduce_columns(int k, double* totals) {
  std::vector<Piece> pieces;
  int64_t partial_count = 0;
  const auto blocks_of = [](const TensorArgs& t) { return std::max<int64_t>(1, (t.rows + kColumnRows - 1) / kColumnRows); };
  for (const TensorArgs& t : tensors_) partial_count += blocks_of(t) * t.cols;
  std::vector<double> partials(partial_count);
  double* partial = partials.data();
  for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) {
    const TensorArgs& t = tensors_[i];
    for (int64_t block = 0; block < blocks_of(t); ++block, partial += t.cols) {
      const int64_t row_begin = block * kColumnRows, row_end = std::min(t.rows, row_begin + kColumnRows);
      for (int64_t c = 0; c < t.cols; c += kColumnBlock) {
        pieces.push_back({i, c, std::min(t.cols, c + kColumnBlock), row_begin, row_end, partial + c});
      }
    }
  }
  parallel(int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const Piece& piece = pieces[p];
      kernels_.reduce_columns(task(piece.tensor), k, piece.row_begin, piece.row_end, piece.begin, piece.end, piece.out);
    }
  });
  partial = partials.data();
  for (const TensorArgs& t : tensors_) {
    for (int64_t block = 0; block < blocks_of(t); ++block, partial += t.cols) {
      for (int64_t c = 0; c < t.cols; ++c) {
        const double value = partial[c];
        totals[c] = block == 0 ? value : op(k) == ReduceOp::kMax ? math::max(totals[c], value) : totals[c] + value;
      }
    }
    totals += t.cols;
  }
}

void Passes::finalize(int k) {
  set_completed(k);
  if (axis(k) != Axis::kTensor || k >= kernels_.reductions) return;
  if (is_selection(k)) {
    double* counts = new_totals(k);
    for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) kernels_.choose(task(i), k, counts + i * width(k));
    return;
  }
  if (is_products(k) || is_sums(k)) {
    double* sums = new_totals(k);
    for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) kernels_.settle(task(i), sums + i * width(k));
    return;
  }
  const double* totals = new_totals(k);
  for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) {
    kernels_.finalize(task(i), k, totals[i]);
  }
}

}  // namespace momentum::cpu
