// StableMax cross-entropy, see core/stablemax.h. The loss reads each logit once, the gradient reads it once and writes one
// number of its dtype: 4 and 8 bytes per logit in float32.
//
// A warp takes a row of up to 2048 classes, a block a longer one. A lane adds 32 terms in the arithmetic type, then in double;
// which lane adds which logit depends on the number of classes alone, so a row's bits do not depend on its batch. Where the
// classes are no multiple of the group the loss reads element by element, through the first-level cache. A few rows of very
// many classes leave most of a GPU idle.
#include "core/stablemax.h"
#include "cuda/access.h"
#include "cuda/ot/reduce.h"
#include "cuda/stablemax.h"

namespace momentum::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int64_t kWarpRow = 2048;
constexpr int64_t kMostBlocks = 8192;
constexpr int kBlocks = 4;  // on a multiprocessor
// Groups that a lane loads at a time and adds in the arithmetic type: at most 32 terms.
template <int V>
constexpr int kGroups = V == 8 ? 4 : 8;

template <bool kWholeBlock>
constexpr int kRowLanes = kWholeBlock ? kRowThreads : 32;

template <class T>
__device__ __forceinline__ double logit(const StableMaxCall& c, int64_t i) {
  T value;
  decode_group<T, 1>(c.dtype, load_group<1>(c.logits, c.dtype, false, i, i + 1), &value);
  return double(value);
}

__device__ __forceinline__ const void* row_of(const void* base, DType dtype, int64_t first) {
  return static_cast<const char*>(base) + first * item_size(dtype);
}

template <class T, int V, bool kWholeBlock>
__global__ void __launch_bounds__(kRowThreads, kBlocks)
    stablemax_loss_kernel(const StableMaxCall __grid_constant__ c, bool aligned) {
  constexpr int kLanes = kRowLanes<kWholeBlock>;
  __shared__ double meeting[33];
  const int lane = int(threadIdx.x) % kLanes;
  const int64_t stride = int64_t(gridDim.x) * (kRowThreads / kLanes);
  for (int64_t row = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes; row < c.rows; row += stride) {
    const int64_t y = stablemax::target_of(c, row), first = row * c.classes;
    const void* logits = row_of(c.logits, c.dtype, first);
    double total = 0;
    for (int64_t begin = int64_t(lane) * V; y >= 0 && begin < c.classes; begin += int64_t(kLanes) * V * kGroups<V>) {
      Raw raw[kGroups<V>];
#pragma unroll
      for (int k = 0; k < kGroups<V>; ++k) {
        const int64_t i = begin + int64_t(k) * kLanes * V;
        if (i < c.classes) raw[k] = load_group<V>(logits, c.dtype, aligned, i, c.classes);
      }
      T sum = T(0);
#pragma unroll
      for (int k = 0; k < kGroups<V>; ++k) {
        const int64_t i = begin + int64_t(k) * kLanes * V;
        if (i >= c.classes) continue;
        T x[V];
        decode_group<T, V>(c.dtype, raw[k], x);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (i + v < c.classes && i + v != y) sum += stablemax::activation(x[v]);
        }
      }
      total += double(sum);
    }
    if constexpr (kWholeBlock) {
      __syncthreads();  // the row before has been read
      total = ot::block_sum(total, meeting);
    } else {
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
    }
    if (lane != 0) continue;
    if (y == stablemax::kInvalid) total = __longlong_as_double(0x7ff8000000000000ll);
    c.rest[row] = total;
    static_cast<T*>(c.losses)[row] = T(y >= 0 ? stablemax::loss(total, logit<T>(c, first + y)) : total);
  }
}

template <class T, int V, bool kWholeBlock>
__global__ void __launch_bounds__(kRowThreads, kBlocks) stablemax_grad_kernel(const StableMaxCall __grid_constant__ c) {
  constexpr int kLanes = kRowLanes<kWholeBlock>;
  const int lane = int(threadIdx.x) % kLanes;
  const int64_t stride = int64_t(gridDim.x) * (kRowThreads / kLanes);
  for (int64_t row = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes; row < c.rows; row += stride) {
    const int64_t y = stablemax::target_of(c, row), first = row * c.classes;
    const double at_target = y >= 0 ? logit<T>(c, first + y) : 0.0;
    const auto scale = stablemax::row_gradient<T>(double(static_cast<const T*>(c.losses)[row]), c.rest[row], at_target);
    const void* logits = row_of(c.logits, c.dtype, first);
    void* grads = const_cast<void*>(row_of(c.grad, c.dtype, first));
    const auto phase = [&](const void* base) { return int(reinterpret_cast<uintptr_t>(base) / item_size(c.dtype) % V); };
    const int shift = phase(logits);
    const bool together = phase(grads) == shift;
    for (int64_t i = int64_t(lane) * V - shift; i < c.classes; i += kLanes * V) {
      T x[V];
      decode_group<T, V>(c.dtype, load_group<V>(logits, c.dtype, true, i, c.classes), x);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const T other = scale.others * stablemax::slope(x[v]);
        x[v] = y == stablemax::kIgnored ? T(0) : i + v == y ? scale.own : other;
      }
      store_group<V>(grads, c.dtype, together, i, c.classes, encode_group<T, V>(c.dtype, x));
    }
  }
}

// Calls go<T, V, kWholeBlock>(blocks) with the arithmetic type and the elements of 16 bytes.
template <class Go>
cudaError_t choose(const StableMaxCall& c, Go&& go) {
  if (c.rows == 0) return cudaSuccess;
  const bool whole = c.classes > kWarpRow;
  const int64_t per_block = whole ? 1 : kRowThreads / 32, wanted = (c.rows + per_block - 1) / per_block;
  const auto blocks = unsigned(wanted < kMostBlocks ? wanted : kMostBlocks);
  const auto with_rows = [&]<class T, int V>() {
    return whole ? go.template operator()<T, V, true>(blocks) : go.template operator()<T, V, false>(blocks);
  };
  if (c.dtype == DType::kFloat64) return with_rows.template operator()<double, 2>();
  if (c.dtype == DType::kFloat32) return with_rows.template operator()<float, 4>();
  return with_rows.template operator()<float, 8>();
}

}  // namespace

cudaError_t run_stablemax_loss(const StableMaxCall& c, const Context& context) {
  return choose(c, [&]<class T, int V, bool kWholeBlock>(unsigned blocks) {
    const bool aligned = reinterpret_cast<uintptr_t>(c.logits) % 16 == 0 && c.classes % V == 0;
    return simt::launch(stablemax_loss_kernel<T, V, kWholeBlock>, blocks, kRowThreads, 0, context.stream, c, aligned);
  });
}

cudaError_t run_stablemax_grad(const StableMaxCall& c, const Context& context) {
  return choose(c, [&]<class T, int V, bool kWholeBlock>(unsigned blocks) {
    return simt::launch(stablemax_grad_kernel<T, V, kWholeBlock>, blocks, kRowThreads, 0, context.stream, c);
  });
}

}  // namespace momentum::cuda
