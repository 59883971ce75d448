// AdamW for float32 as a bare loop: what a step takes at least on a machine, by whomever.
//
// It is told all addresses beforehand, checks nothing, and has torch's threads take contiguous shares of all elements.
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t kUnit = 1024;  // elements that one thread takes at least, from one tensor
constexpr int64_t kGrain = 64;   // units worth waking a thread for

struct Tensor {
  float* param;
  const float* grad;
  float* exp_avg;
  float* exp_avg_sq;
  int64_t numel;
  int64_t first_unit;
};

struct Step {
  const Tensor* tensors;
  int64_t count;
  float lr, beta1, beta2, eps, weight_decay;
  int64_t number;
};

void run(const Step& step, const Tensor& tensor, int64_t begin, int64_t end) {
  float* __restrict p = tensor.param;
  const float* __restrict g = tensor.grad;
  float* __restrict m = tensor.exp_avg;
  float* __restrict v = tensor.exp_avg_sq;
  const auto correction = [&](float beta) { return 1 - std::pow(double(beta), double(step.number)); };
  const float step_size = float(step.lr / correction(step.beta1));
  const float root_scale = float(1 / std::sqrt(correction(step.beta2)));
  const float decay = 1 - step.lr * step.weight_decay, beta2 = step.beta2, eps = step.eps;
  const float gain1 = 1 - step.beta1, gain2 = 1 - step.beta2;
  for (int64_t i = begin; i < end; ++i) {
    m[i] += gain1 * (g[i] - m[i]);
    v[i] = beta2 * v[i] + gain2 * g[i] * g[i];
    p[i] = decay * p[i] - step_size * m[i] / (std::sqrt(v[i]) * root_scale + eps);
  }
}

int64_t units_of(const Tensor& tensor) { return (tensor.numel + kUnit - 1) / kUnit; }

void run_units(int64_t begin, int64_t end, void* context) {
  const Step& step = *static_cast<const Step*>(context);
  const auto starts_later = [](int64_t unit, const Tensor& tensor) { return unit < tensor.first_unit; };
  const Tensor* tensor = std::upper_bound(step.tensors, step.tensors + step.count, begin, starts_later) - 1;
  for (; tensor < step.tensors + step.count && tensor->first_unit < end; ++tensor) {
    const int64_t first = std::max<int64_t>(begin - tensor->first_unit, 0);
    const int64_t last = std::min(end - tensor->first_unit, units_of(*tensor));
    run(step, *tensor, first * kUnit, std::min(last * kUnit, tensor->numel));
  }
}

}  // namespace

// `parallel_for`: torch_parallel_for of torch's stable C interface, whose result is 0 where all went well.
using ParallelFor = int (*)(int64_t begin, int64_t end, int64_t grain, void (*range)(int64_t, int64_t, void*), void* context);

// Counts the units of the tensors. There is at least one tensor.
extern "C" void prepare(Tensor* tensors, int64_t count) {
  for (int64_t i = 0, unit = 0; i < count; ++i) {
    tensors[i].first_unit = unit;
    unit += units_of(tensors[i]);
  }
}

extern "C" int step(ParallelFor parallel_for, const Step* step) {
  const Tensor& last = step->tensors[step->count - 1];
  return parallel_for(0, last.first_unit + units_of(last), kGrain, run_units, const_cast<Step*>(step));
}
