// The tensors of one call, in memory of exactly their size.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scenario.h"
#include "subject.h"

namespace momentum::sanitizers {

// A stream of one tensor. It starts `offset` elements into its allocation, which ends with it.
class Stream {
 public:
  Stream(std::string name, DType dtype, int64_t numel, int64_t offset);

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  int64_t numel() const { return numel_; }
  void* data() const { return memory_.get() + offset_ * item_size(dtype_); }
  double get(int64_t i) const;
  void set(int64_t i, double value);

 private:
  std::string name_;
  DType dtype_;
  int64_t numel_, offset_;
  std::unique_ptr<unsigned char[]> memory_;
};

// Equal problems are made of equal arguments.
class Problem {
 public:
  Problem(const Subject& subject, const Scenario& scenario, int variant);

  const StepCall& call() const { return call_; }
  StepCall& call() { return call_; }
  int reductions() const { return reductions_; }
  void draw_gradients(int step);

  // Streams that a call may write, those of all tensors in the same order for equal problems.
  const std::vector<Stream>& written() const { return written_; }

 private:
  void choose_numbers(const Subject& subject, const Scenario& scenario, int variant);
  void add_tensor(const Subject& subject, const Scenario& scenario, int64_t rows, int64_t cols);
  void* add_stream(std::string name, DType dtype, int64_t numel, int64_t offset, double low, double high);

  StepCall call_;
  int reductions_ = 0;
  std::vector<Stream> written_, grads_;
  std::vector<double> device_numbers_;
  std::vector<double> device_lr_;
  std::vector<float> device_weight_decay_;
  float grad_scale_ = 4, found_inf_ = 0;
};

}  // namespace momentum::sanitizers
