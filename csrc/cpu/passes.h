// The passes of one call over its tensors: what each finds in the totals, and how its work is cut into pieces.
#pragma once

#include <cstdint>
#include <vector>

#include "core/reductions.h"
#include "cpu/driver.h"

namespace momentum::cpu {

class Passes {
 public:
  Passes(const Kernels& kernels, const std::vector<TensorArgs>& tensors, const CommonArgs& common, ParallelFor parallel_for)
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
  void reduce_ranges(const Task& work, int k, int64_t begin, int64_t length, int64_t count, double* out) const;
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

}  // namespace momentum::cpu
