// The passes of one call over some of its tensors: what each finds in the totals, and how its work is cut into pieces.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/reductions.h"
#include "cpu/driver.h"

namespace momentum::cpu {

class Passes {
 public:
  Passes(const Kernels& kernels, const TensorArgsVector& tensors, const CommonArgs& common, ParallelFor parallel_for)
      : kernels_(kernels), all_(tensors), common_(common), parallel_for_(parallel_for) {
    kernels_.constants(common_, constants_);
    choose(0, int64_t(tensors.size()));
    const Axis along = axis(0);
    if (along == Axis::kTensor) return;
    segments_.assign(1, 0);
    for (const TensorArgs& t : tensors) segments_.push_back(segments_.back() + segment_count(t, along));
  }

  // From here on the passes are of tensors [begin, end) of the call.
  void choose(int64_t begin, int64_t end) {
    first_ = begin;
    tensors_ = std::span(all_).subspan(size_t(begin), size_t(end - begin));
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
      offset += segments_before(axis(k), int64_t(all_.size())) * width(k);
    }
    next_offset_ = offset;
  }

 private:
  Axis axis(int k) const { return k < kernels_.reductions ? kernels_.reduce_axis(k, common_.hypers) : Axis::kTensor; }

  int width(int k) const { return k < kernels_.reductions ? kernels_.width(k) : 1; }

  // Segments of the tensors before tensor `i` of the call. Those that are no whole tensors all have the axis of reduction 0.
  int64_t segments_before(Axis along, int64_t i) const { return along == Axis::kTensor ? i : segments_[size_t(i)]; }

  // Where reduction k, which is the next, puts the totals of the chosen tensors.
  double* new_totals(int k) const { return common_.totals + next_offset_ + segments_before(axis(k), first_) * width(k); }

  // The totals of the segments of chosen tensor `i`, as the map reads them.
  const double* segment_totals(int64_t i) const {
    return common_.totals == nullptr ? nullptr : common_.totals + segments_before(axis(0), first_ + i) * width(0);
  }

  // Whether reduction k makes several numbers for a segment, and whether out of those of reduction 0.
  bool is_products(int k) const { return kernels_.products != nullptr && k == 0; }
  bool is_sums(int k) const { return kernels_.summarize != nullptr && k == 1; }

  bool is_selection(int k) const { return kernels_.select != nullptr && k < kSelectionPasses; }

  ReduceOp op(int k) const { return k < kernels_.reductions ? kernels_.reduce_op(k, common_.hypers) : ReduceOp::kSum; }

  // Of chosen tensor `i`.
  Task task(int64_t i) const {
    return {&common_, &tensors_[size_t(i)], constants_, &layout_, segment_totals(i), first_ + i, axis(0)};
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
  void reduce_ranges(const Task& work, int k, int64_t begin, int64_t length, int64_t count, double* out) const;
  void sum_segments(double* sums);
  void select(int k, double* totals);

  const Kernels& kernels_;
  const TensorArgsVector& all_;
  std::span<const TensorArgs> tensors_;  // the chosen ones
  int64_t first_ = 0;                    // of them, in the call
  std::vector<int64_t> segments_;        // before each tensor of the call and in all, unless tensors are the segments
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

}  // namespace momentum::cpu
