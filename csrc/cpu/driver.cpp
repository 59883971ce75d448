#include "cpu/driver.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "core/bits.h"
#include "core/math.h"
#include "core/perpendicular.h"
#include "core/reductions.h"
#include "cpu/dispatch.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kUnit = 1024;          // elements per unit of the map's work
constexpr int64_t kMapGrain = 65536;     // elements worth waking a thread for
constexpr int64_t kTensorCost = 128;     // what a tensor costs beside its elements, in elements
constexpr int64_t kReduceRange = 16384;  // elements per partial total
constexpr int64_t kColumnRows = 4096;    // rows per partial total of a column
constexpr int64_t kColumnBlock = 1024;   // columns per piece of work

bool uses_matrix_scales(const CommonArgs& common) {
  for (const StateFormat& format : common.state_formats) {
    if (format.scaling != Scaling::kBlock) return true;
  }
  return false;
}

class Call {
 public:
  Call(const Kernels& kernels, const std::vector<TensorArgs>& tensors, const CommonArgs& common, ParallelFor parallel_for)
      : kernels_(kernels), tensors_(tensors), common_(common), parallel_for_(parallel_for) {
    kernels_.constants(common_, constants_);
  }

  int reductions() const { return kernels_.reductions + (common_.cautious == Cautious::kRescaled ? 1 : 0); }

  void reduce(int k);
  void finalize(int k);
  void map();

  // Reductions [0, count) have totals that may be read.
  void set_completed(int count) {
    layout_ = {};
    layout_.completed = count;
    int64_t offset = 0;
    for (int k = 0; k < count; ++k) {
      layout_.offset[k] = offset;
      layout_.per_tensor[k] = axis(k) == Axis::kTensor && width(k) == 1;
      offset += segment_total(tensors_, axis(k)) * width(k);
    }
    next_offset_ = offset;
  }

 private:
  // A piece of a reduction: a range of elements of one segment, whole short segments, or a block of a column's rows.
  struct Piece {
    int64_t tensor;
    int64_t begin, end;          // elements, rows of a group, or columns
    int64_t row_begin, row_end;  // columns only
    double* out;
  };

  Axis axis(int k) const { return k < kernels_.reductions ? kernels_.reduce_axis(k, common_.hypers) : Axis::kTensor; }

  int width(int k) const { return k < kernels_.reductions ? kernels_.width(k) : 1; }

  // The totals of a tensor's segments as the map reads them, given its first segment.
  const double* totals_of(int64_t first_segment) const {
    return common_.totals == nullptr ? nullptr : common_.totals + first_segment * width(0);
  }

  // Whether reduction k makes several numbers for a segment, and whether out of those of reduction 0.
  bool is_products(int k) const { return kernels_.products != nullptr && k == 0; }
  bool is_sums(int k) const { return kernels_.summarize != nullptr && k == 1; }

  bool is_selection(int k) const { return kernels_.select != nullptr && k < kSelectionPasses; }

  ReduceOp op(int k) const { return k < kernels_.reductions ? kernels_.reduce_op(k, common_.hypers) : ReduceOp::kSum; }

  Task task(int64_t index, const double* segment_totals) const {
    return {&common_, &tensors_[index], constants_, &layout_, segment_totals, index, axis(0)};
  }

  template <class Body>
  void parallel(int64_t count, int64_t grain, Body&& body) {
    if (count == 0) return;
    parallel_for_(
        0, count, grain, [](int64_t begin, int64_t end, void* context) { (*static_cast<Body*>(context))(begin, end); }, &body);
  }

  bool has_own_scales(const TensorArgs& t, int k) const {
    return t.state_dtypes[k] == DType::kCodes && t.states[k] != nullptr &&
           has_matrix_scales(common_.state_formats[k], t.rows, t.cols);
  }
  void find_scales();
  void keep_scales();
  void reduce_contiguous(int k, Axis along, double* totals);
  void reduce_columns(int k, double* totals);
  void reduce_range(const Task& work, int k, int64_t begin, int64_t end, double* out) const;
  void sum_segments(double* sums);
  void select(int k, double* totals);

  const Kernels& kernels_;
  const std::vector<TensorArgs>& tensors_;
  const CommonArgs& common_;
  ParallelFor parallel_for_;
  ConstantsStorage constants_[2];
  // Of one tensor: the scales that its states with the scales of a matrix will have.
  struct NewScales {
    std::vector<float> values;
    float* of_state[kMaxStates] = {};
  };

  TotalsLayout layout_;
  int64_t next_offset_ = 0;
  std::vector<NewScales> scales_;
};

// The maxima of rows and columns are found first, by stepping without storing; then the map stores with them as scales.
void Call::find_scales() {
  const auto& tensors = tensors_;
  const auto& formats = common_.state_formats;
  scales_.assign(tensors.size(), {});
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorArgs& t = tensors[i];
    size_t count = 0, begin[kMaxStates] = {};
    for (int k = 0; k < kMaxStates; ++k) {
      begin[k] = count;
      if (has_own_scales(t, k)) count += size_t(matrix_scales(formats[k], t.rows, t.cols).count());
    }
    if (count == 0) continue;
    chosen.push_back(int64_t(i));
    scales_[i].values.assign(count, 0.0f);
    for (int k = 0; k < kMaxStates; ++k) {
      if (has_own_scales(t, k)) scales_[i].of_state[k] = scales_[i].values.data() + begin[k];
    }
  }
  std::vector<int64_t> segments(1, 0), units(1, 0);
  for (const TensorArgs& t : tensors) segments.push_back(segments.back() + segment_count(t, axis(0)));
  for (const int64_t i : chosen) units.push_back(units.back() + (tensors[size_t(i)].numel + kUnit - 1) / kUnit);
  std::mutex merging;
  parallel(units.back(), kMapGrain / kUnit, [&](int64_t begin, int64_t end) {
    size_t place = size_t(std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1);
    for (int64_t unit = begin; unit < end; ++place) {
      const int64_t last = std::min(end, units[place + 1]), i = chosen[place];
      const TensorArgs& t = tensors[size_t(i)];
      NewScales& found = scales_[size_t(i)];
      std::vector<uint32_t> own(found.values.size(), 0);
      uint32_t* maxima[kMaxStates] = {};
      for (int k = 0; k < kMaxStates; ++k) {
        if (found.of_state[k] != nullptr) maxima[k] = own.data() + (found.of_state[k] - found.values.data());
      }
      kernels_.maxima(task(i, totals_of(segments[size_t(i)])), (unit - units[place]) * kUnit,
                      std::min((last - units[place]) * kUnit, t.numel), maxima);
      const std::lock_guard lock(merging);  // of maxima: their order does not matter
      for (size_t s = 0; s < own.size(); ++s) {
        const auto known = bit_cast<uint32_t>(found.values[s]);
        found.values[s] = bit_cast<float>(std::max(known, own[s]));
      }
      unit = last;
    }
  });
}

void Call::keep_scales() {
  for (size_t i = 0; i < scales_.size(); ++i) {
    const TensorArgs& t = tensors_[i];
    for (int k = 0; k < kMaxStates; ++k) {
      if (scales_[i].of_state[k] == nullptr) continue;
      const int64_t count = matrix_scales(common_.state_formats[k], t.rows, t.cols).count();
      std::copy_n(scales_[i].of_state[k], count, static_cast<float*>(t.scales[k]));
    }
  }
}

void Call::map() {
  if (uses_matrix_scales(common_)) find_scales();
  const auto& tensors = tensors_;
  const int64_t count = int64_t(tensors.size());
  std::vector<int64_t> units(count + 1, 0), segments(count + 1, 0);
  const Axis along = axis(0);
  for (int64_t i = 0; i < count; ++i) {
    units[i + 1] = units[i] + (tensors[i].numel + kUnit - 1) / kUnit;
    segments[i + 1] = segments[i] + segment_count(tensors[i], along);
  }
  int64_t work = kTensorCost * count;
  for (const TensorArgs& t : tensors) work += t.numel;
  const int64_t grain = std::max<int64_t>(1, units[count] * kMapGrain / std::max<int64_t>(work, 1));
  parallel(units[count], grain, [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1;
    for (int64_t unit = begin; unit < end; ++i) {
      const int64_t last = std::min(end, units[i + 1]);
      if (unit == last) continue;
      const int64_t first = (unit - units[i]) * kUnit;
      const int64_t stop = std::min((last - units[i]) * kUnit, tensors[i].numel);
      Task work = task(i, totals_of(segments[i]));
      if (!scales_.empty()) work.new_scales = scales_[size_t(i)].of_state;
      kernels_.map(work, first, stop);
      unit = last;
    }
  });
  keep_scales();
  if (common_.steps == nullptr) return;
  for (int64_t i = 0; i < count; ++i) common_.steps[i] += 1.0f;
}

void Call::reduce(int k) {
  set_completed(k);
  double* totals = common_.totals + next_offset_;
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

void Call::reduce_range(const Task& work, int k, int64_t begin, int64_t end, double* out) const {
  if (is_products(k)) {
    kernels_.products(work, begin, end, out);
  } else {
    *out = kernels_.reduce(work, k, begin, end);
  }
}

// Segments that are contiguous ranges: whole tensors or rows. Long ones are split, short ones grouped; both depend on the
// tensor alone, so a total never depends on what else is in the list or on the number of threads.
void Call::reduce_contiguous(int k, Axis along, double* totals) {
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
  std::vector<int64_t> segments(1, 0);
  for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) {
    const TensorArgs& t = tensors_[i];
    const int64_t length = length_of(t), count = segment_count(t, along);
    segments.push_back(segments.back() + segment_count(t, axis(0)));
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
      const Task work = task(piece.tensor, totals_of(segments[size_t(piece.tensor)]));
      if (piece.row_end == 0) {
        reduce_range(work, k, piece.begin, piece.end, piece.out);
      } else {
        const int64_t length = length_of(*work.tensor);
        for (int64_t s = piece.begin; s < piece.end; ++s) {
          reduce_range(work, k, s * length, (s + 1) * length, piece.out + (s - piece.begin) * each);
        }
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
void Call::sum_segments(double* sums) {
  std::vector<int64_t> segments(1, 0);
  for (const TensorArgs& t : tensors_) segments.push_back(segments.back() + segment_count(t, axis(0)));
  parallel(int64_t(tensors_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.summarize(task(i, nullptr), totals_of(segments[size_t(i)]), sums + i * width(1));
    }
  });
}

// Threads count for themselves and add their counts, which are integers: their order does not matter.
void Call::select(int k, double* totals) {
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
      kernels_.select(task(int64_t(i), nullptr), k, (unit - units[i]) * kReduceRange,
                      std::min((last - units[i]) * kReduceRange, tensors_[i].numel), counts.data());
      const std::lock_guard lock(merging);
      for (int b = 0; b < bins; ++b) totals[int64_t(i) * each + b] += double(counts[size_t(b)]);
      unit = last;
    }
  });
}

void Call::reduce_columns(int k, double* totals) {
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
      kernels_.reduce_columns(task(piece.tensor, nullptr), k, piece.row_begin, piece.row_end, piece.begin, piece.end,
                              piece.out);
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

void Call::finalize(int k) {
  set_completed(k);
  if (axis(k) != Axis::kTensor || k >= kernels_.reductions) return;
  if (is_selection(k)) {
    double* counts = common_.totals + next_offset_;
    for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) kernels_.choose(task(i, nullptr), k, counts + i * width(k));
    return;
  }
  if (is_products(k) || is_sums(k)) {
    double* sums = common_.totals + next_offset_;
    for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) kernels_.settle(task(i, nullptr), sums + i * width(k));
    return;
  }
  for (int64_t i = 0; i < int64_t(tensors_.size()); ++i) {
    kernels_.finalize(task(i, nullptr), k, common_.totals[next_offset_ + i]);
  }
}

}  // namespace

void run_step(const Kernels& kernels, const StepCall& step, ParallelFor parallel_for) {
  if (step.common.found_inf != nullptr && *step.common.found_inf != 0.0f) return;
  const bool whole = step.stage == kWholeStep;
  Call call(kernels, step.tensors, step.common, parallel_for);
  const int reductions = call.reductions();
  if (step.common.perpendicular != nullptr) {
    const CommonArgs common = rules::perpendicular_pass(step.common);
    Call pass(cpu::kernels<rules::Perpendicular>(), step.tensors, common, parallel_for);
    if (whole || step.stage == 2 * reductions + 1) pass.reduce(0);
    if (whole || step.stage == 2 * reductions + 2) pass.finalize(0);
  }
  for (int k = 0; k < reductions; ++k) {
    if (whole || step.stage == 2 * k) call.reduce(k);
    if (whole || step.stage == 2 * k + 1) call.finalize(k);
  }
  if (whole || step.stage == 2 * reductions) {
    call.set_completed(reductions);
    call.map();
  }
}

}  // namespace momentum::cpu
