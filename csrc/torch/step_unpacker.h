// Turns the arguments of a step into a StepCall, refusing whatever a kernel must not see.
#pragma once

#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/step_arguments.h"

namespace momentum::ops {

class StepUnpacker {
 public:
  StepUnpacker(const RuleDescription& rule, const char* op, const StepArguments& arguments, Device device)
      : rule_(rule),
        a_(arguments),
        check_(op, device),
        count_(arguments.params.size()),
        parts_(count_ == 0 ? nullptr : arguments.params[0].data) {}

  StepCall unpack(const TensorLoop& loop);

 private:
  // All of the call, in step_unpacker.cpp.
  void lengths() const;
  void numbers();
  void options();
  void vectors(OverlapCheck& overlap);
  int64_t integer(const char* argument, int64_t value, int64_t low, int64_t high) const;

  // Some tensors; by several threads at once, which share nothing that they write.
  void tensors(size_t begin, size_t end);

  // One tensor.
  void tensor(size_t i, OverlapCheck& overlap);
  void residual(size_t i, const TensorInfo& param, TensorArgs& t, OverlapCheck& overlap) const;
  void low_bits(size_t i, const TensorInfo& info, TensorArgs& t, OverlapCheck& overlap) const;
  void ema(size_t i, const TensorInfo& param, bool wide, TensorArgs& t, OverlapCheck& overlap) const;
  void like_param(const char* argument, size_t i, const TensorInfo& info, const TensorInfo& param) const;

  // Quantised states, in step_states.cpp.
  void state_formats();
  void set_scale_dtype(int k);
  void quantised_state(int k, size_t i, const TensorInfo& codes, const TensorInfo& param, TensorArgs& t,
                       OverlapCheck& overlap) const;
  void no_scales(int k, size_t i) const;

  bool has_state(int k) const { return !rule_.states[k].optional || !a_.states[k].empty(); }

  const RuleDescription& rule_;
  const StepArguments& a_;
  Checker check_;
  size_t count_;
  int reductions_ = 0;
  size_t first_scale_[kMaxStates] = {};  // of each quantised state
  StepCall call_;
  OverlapParts parts_;
};

}  // namespace momentum::ops
