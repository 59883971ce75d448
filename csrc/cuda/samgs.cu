// SAM-GS, see core/samgs.h: one block decides, then one pass over all tasks reads gradients and averages once and writes
// averages and the sum: 12 T + 4 bytes per element in float32, beside the 4 T of the norms.
#include "cuda/access.h"
#include "cuda/launch_tables.h"
#include "cuda/ot/reduce.h"
#include "cuda/samgs.h"

namespace momentum::cuda {
namespace {

constexpr int kOut = 0, kGrad = 1, kAverage = 2;  // streams; those of the tasks have one dtype, and are aligned all or none

__global__ void __launch_bounds__(kThreads) samgs_decide_kernel(const SamgsDecision __grid_constant__ d) {
  __shared__ double squares[samgs::kMostTasks], meeting[33];
  const int lane = threadIdx.x % 32;
  for (int64_t i = threadIdx.x / 32; i < d.tasks; i += kWarps) {
    double sum = 0;
    for (int64_t k = lane; k < d.tensors; k += 32) sum += d.squares[i * d.tensors + k];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) squares[i] = sum;
  }
  __syncthreads();
  double similarities = 0;
  for (int64_t pair = threadIdx.x; pair < d.tasks * d.tasks; pair += kThreads) {
    const int64_t i = pair / d.tasks, j = pair % d.tasks;
    if (j < i) similarities += samgs::similarity(squares[i], squares[j]);
  }
  similarities = ot::block_sum(similarities, meeting);
  if (threadIdx.x == 0) samgs::decide(d, similarities);
  const double norm = threadIdx.x < d.tasks ? math::sqrt(squares[threadIdx.x]) : 0.0;
  __syncthreads();
  const double norms = ot::block_sum(norm, meeting);
  if (threadIdx.x < d.tasks) d.weights[threadIdx.x] = samgs::equal_weight(norms, norm);
}

struct SamgsHeader {
  const double* weights;
  double beta1;
  int tasks;
  const void* resident;
  uint32_t chunks, entries;
};

// Entries hold the output, the first task's gradient, all averages, the other gradients.
template <int kTasks>
struct SamgsParams {
  using Entry = EntryBase<2 * kTasks - 1>;
  static constexpr int kCapacity = (kParameterBytes - int(sizeof(SamgsHeader)) - 16) / int(sizeof(Entry));
  SamgsHeader header;
  union {
    Entry table[kCapacity];
    ResidentPart part;
  };
};

template <class T, int kTasks>
__global__ void __launch_bounds__(kThreads) samgs_kernel(const SamgsParams<kTasks> __grid_constant__ params) {
  constexpr int V = 16 / sizeof(T);
  __shared__ typename SamgsParams<kTasks>::Entry e;
  __shared__ T weights[kTasks];
  const int tasks = params.header.tasks;
  if (threadIdx.x < unsigned(tasks)) weights[threadIdx.x] = T(params.header.weights[threadIdx.x]);
  const auto scalars = samgs::prepare<T>(params.header.beta1, params.header.weights[tasks]);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const int64_t begin = int64_t(chunk - e.first_chunk) * kChunk - e.shift;
    const int64_t end = begin + kChunk < e.numel ? begin + kChunk : e.numel;
    const auto dtype = [&](int stream) { return stream_dtype(e.dtypes, stream); };
    const auto aligned = [&](int stream) { return stream_aligned(e.aligned, stream); };
    for (int64_t i = begin + int64_t(threadIdx.x) * V; i < end; i += kThreads * V) {
      T sum[V] = {};
#pragma unroll 2
      for (int task = 0; task < tasks; ++task) {
        const void* grads = task == 0 ? e.grad : e.states[tasks + task - 1];
        const Raw raw_grad = load_group<V>(grads, dtype(kGrad), aligned(kGrad), i, e.numel);
        const Raw raw_average = load_group<V>(e.states[task], dtype(kAverage), aligned(kAverage), i, e.numel);
        T g[V], m[V];
        decode_group<T, V>(dtype(kGrad), raw_grad, g);
        decode_group<T, V>(dtype(kAverage), raw_average, m);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += samgs::element(scalars, weights[task], g[v], m + v);
        const Raw kept = encode_group<T, V>(dtype(kAverage), m);
        store_group<V>(e.states[task], dtype(kAverage), aligned(kAverage), i, e.numel, kept);
      }
      store_group<V>(e.param, dtype(kOut), aligned(kOut), i, e.numel, encode_group<T, V>(dtype(kOut), sum));
    }
  }
}

template <class T, int kTasks>
cudaError_t run_typed(const SamgsCall& call, const Context& context) {
  constexpr int V = 16 / sizeof(T);
  constexpr auto kKernel = samgs_kernel<T, kTasks>;
  TableLaunch<SamgsParams<kTasks>> launch;
  launch.header().weights = call.weights;
  launch.header().beta1 = call.beta1;
  launch.header().tasks = call.tasks;
  launch.reserve(call.tensors.size());
  const auto phase = [](const void* data, DType dtype) {
    return unsigned(reinterpret_cast<uintptr_t>(data) / size_t(item_size(dtype)) % V);
  };
  for (size_t index = 0; index < call.tensors.size(); ++index) {
    const SamgsTensor& t = call.tensors[index];
    if (t.numel == 0 || (t.out_dtype == DType::kFloat64) != (sizeof(T) == 8)) continue;
    const DType average = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
    auto& e = launch.add();
    e.param = t.out;
    e.grad = t.grads[0];
    e.numel = t.numel;
    e.index = uint32_t(index);
    const unsigned shift = phase(t.exp_avgs[0], average);
    bool grads = true, averages = true;
    for (int task = 0; task < call.tasks; ++task) {
      e.states[task] = t.exp_avgs[task];
      if (task > 0) e.states[call.tasks + task - 1] = const_cast<void*>(t.grads[task]);
      grads = grads && phase(t.grads[task], t.grad_dtype) == shift;
      averages = averages && phase(t.exp_avgs[task], average) == shift;
    }
    e.shift = uint8_t(shift);
    e.dtypes =
        uint32_t(t.out_dtype) << (4 * kOut) | uint32_t(t.grad_dtype) << (4 * kGrad) | uint32_t(average) << (4 * kAverage);
    const bool out = phase(t.out, t.out_dtype) == shift;
    e.aligned = uint16_t(unsigned(out) << kOut | unsigned(grads) << kGrad | unsigned(averages) << kAverage);
    launch.add_chunks((t.numel + shift + kChunk - 1) / kChunk);
  }
  return launch_tables<kKernel>(launch, context, BlockPerChunk{});
}

template <int kTasks>
cudaError_t run_both(const SamgsCall& call, const Context& context) {
  const cudaError_t error = run_typed<float, kTasks>(call, context);
  return error != cudaSuccess ? error : run_typed<double, kTasks>(call, context);
}

}  // namespace

cudaError_t decide_samgs(const SamgsDecision& d, const Context& context) {
  return simt::launch(samgs_decide_kernel, 1, kThreads, 0, context.stream, d);
}

// A table of a few tasks holds six times as many tensors.
cudaError_t run_samgs(const SamgsCall& call, const Context& context) {
  return call.tasks <= 8 ? run_both<8>(call, context) : run_both<samgs::kMostTasks>(call, context);
}

}  // namespace momentum::cuda
