#include "cpu/samgs.h"

#include <cstddef>

#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

template <class T>
void run_range(const SamgsCall& call, const SamgsTensor& t, int64_t begin, int64_t end) {
  const auto scalars = samgs::prepare<T>(call.beta1, call.weights[call.tasks]);
  T sums[kTile], grads[kTile];
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    for (int v = 0; v < n; ++v) sums[v] = T(0);
    for (int task = 0; task < call.tasks; ++task) {
      const T a = T(call.weights[task]);
      T* __restrict m = static_cast<T*>(t.exp_avgs[task]) + i;
      decode<T>(t.grad_dtype, t.grads[task], i, n, grads);
      for (int v = 0; v < n; ++v) sums[v] += samgs::element(scalars, a, grads[v], m + v);
    }
    encode<T>(t.out_dtype, t.out, i, n, sums);
  }
}

}  // namespace

void samgs_range(const SamgsCall& call, int64_t index, int64_t begin, int64_t end) {
  const SamgsTensor& t = call.tensors[std::size_t(index)];
  t.out_dtype == DType::kFloat64 ? run_range<double>(call, t, begin, end) : run_range<float>(call, t, begin, end);
}

}  // namespace momentum::cpu::MOMENTUM_ISA
