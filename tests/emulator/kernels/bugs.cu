// One planted bug per case. What finds it is in test_emulator.py; a case that ends well has not been found.
#include <cmath>

#include "harness.h"
#include "syrk.h"

namespace {

constexpr unsigned kThreads = 64;

// Adds up a block of integers; the steps that may be missing are parameters.
template <bool kBarrier, bool kWritesAll>
__global__ void block_sum_kernel(const float* in, float* out) {
  __shared__ float values[kThreads];
  const unsigned i = threadIdx.x;
  if (kWritesAll || i != 5) values[i] = in[i];
  if (kBarrier) __syncthreads();
  if (i != 0) return;
  float sum = 0;
  for (unsigned j = 0; j < kThreads; ++j) sum += values[j];
  *out = sum;
}

template <bool kBarrier, bool kWritesAll>
void block_sum() {
  std::vector<float> in(kThreads, 1), out(1);
  launch(block_sum_kernel<kBarrier, kWritesAll>, 1, kThreads, 0, static_cast<const float*>(in.data()), out.data());
  expect("sum", out[0], 64.0f);
}

const Register clean{"clean", block_sum<true, true>};
const Register missing_barrier{"missing barrier", block_sum<false, true>};
const Register unwritten{"unwritten shared memory", block_sum<true, false>};

// The same with dynamic shared memory that nobody writes at all.
__global__ void untouched_kernel(float* out) { out[threadIdx.x] = momentum::simt::dynamic_shared<float>()[threadIdx.x]; }

const Register untouched{"unwritten dynamic shared memory", [] {
                           std::vector<float> out(kThreads);
                           launch(untouched_kernel, 1, kThreads, kThreads * sizeof(float), out.data());
                           expect_equal("value", out, std::vector<float>(kThreads));
                         }};

// A tail that is one element too long.
__global__ void overrun_kernel(float* data, unsigned n) {
  const unsigned i = threadIdx.x;
  if (i <= n) data[i] += 1;
}

const Register global_overrun{"global memory overrun", [] {
                                std::vector<float> data(kThreads - 1);
                                data.shrink_to_fit();
                                launch(overrun_kernel, 1, kThreads, 0, data.data(), kThreads - 1);
                              }};

__global__ void static_overrun_kernel(unsigned n, float* out) {
  __shared__ float values[kThreads];
  float* mine = values + threadIdx.x;
  mine[n] = 1;
  *out = mine[n];
}

const Register static_overrun{"static shared memory overrun", [] {
                                float out = 0;
                                launch(static_overrun_kernel, 1, 1, 0, kThreads, &out);
                              }};

__global__ void dynamic_overrun_kernel(float* out) {
  float* values = momentum::simt::dynamic_shared<float>();
  values[threadIdx.x] = 1;
  if (threadIdx.x == blockDim.x - 1) *out = values[threadIdx.x];
}

const Register dynamic_overrun{"dynamic shared memory overrun", [] {
                                 float out = 0;
                                 launch(dynamic_overrun_kernel, 1, kThreads, (kThreads - 1) * sizeof(float), &out);
                               }};

__global__ void vector_kernel(const float* in, float4* out) { *out = *reinterpret_cast<const float4*>(in); }

const Register misaligned{"misaligned vector", [] {
                            alignas(16) const float in[5] = {0, 1, 2, 3, 4};
                            float4 out{};
                            launch(vector_kernel, 1, 1, 0, in + 1, &out);
                          }};

__global__ void two_barriers_kernel() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

const Register two_barriers{"divergent barrier", [] { launch(two_barriers_kernel, 1, kThreads, 0); }};

__global__ void divergent_syncwarp_kernel() {
  if (threadIdx.x < 7) __syncwarp();
  __syncthreads();
}

const Register divergent_syncwarp{"divergent syncwarp", [] { launch(divergent_syncwarp_kernel, 1, kThreads, 0); }};

__global__ void mixed_collectives_kernel(int* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  } else {
    out[threadIdx.x] = __any_sync(0xffffffffu, 1);
  }
}

const Register mixed_collectives{"mixed collectives", [] {
                                   std::vector<int> out(32);
                                   launch(mixed_collectives_kernel, 1, 32, 0, out.data());
                                 }};

__global__ void foreign_mask_kernel(int* out) { out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1, 1); }

const Register foreign_mask{"mask without the caller", [] {
                              std::vector<int> out(32);
                              launch(foreign_mask_kernel, 1, 32, 0, out.data());
                            }};

// A sum over 32 lanes of which only half are named: the others' values are undefined.
__global__ void short_mask_kernel(float* out) {
  if (threadIdx.x >= 16) return;
  float sum = 1;
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0x0000ffffu, sum, distance);
  out[threadIdx.x] = sum;
}

const Register short_mask{"shuffle from an unnamed lane", [] {
                            std::vector<float> out(16);
                            launch(short_mask_kernel, 1, 32, 0, out.data());
                            if (std::isnan(out[0])) reject("NaN");
                          }};

// Passing memory from lane to lane with a shuffle, which orders nothing, where __syncwarp belongs.
__global__ void missing_syncwarp_kernel(int* out) {
  __shared__ int values[32];
  values[threadIdx.x] = 1;
  __shfl_sync(0xffffffffu, 0, 0);
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

const Register missing_syncwarp{"missing syncwarp", [] {
                                  std::vector<int> out(32);
                                  launch(missing_syncwarp_kernel, 1, 32, 0, out.data());
                                  expect_equal("value", out, std::vector<int>(32, 1));
                                }};

// The last block adds up the others' sums, which no fence has made visible.
__global__ void missing_fence_kernel(float* partial, unsigned* arrived, float* out) {
  partial[blockIdx.x] = 1;
  if (atomicAdd(arrived, 1u) != gridDim.x - 1) return;
  *out = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) *out += partial[i];
}

const Register missing_fence{"missing fence", [] {
                               std::vector<float> partial(4);
                               float out = 0;
                               unsigned arrived = 0;
                               launch(missing_fence_kernel, 4, 1, 0, partial.data(), &arrived, &out);
                               expect("sum", out, 4.0f);
                             }};

// Every block counts without an atomic.
__global__ void plain_counter_kernel(unsigned* count) { *count += 1; }

const Register plain_counter{"counter without atomic", [] {
                               unsigned count = 0;
                               launch(plain_counter_kernel, 4, 1, 0, &count);
                               expect("count", count, 4u);
                             }};

const Register weak_wait{"weak wait", [] { syrk::check<syrk::kRightWait + 1, true>(100, 72); }};
const Register no_pipeline_barrier{"pipeline without barrier", [] { syrk::check<syrk::kRightWait, false>(100, 136); }};

__global__ void misaligned_copy_kernel(const float* in) {
  __shared__ __align__(16) float landing[8];
  momentum::ptx::copy_async<16>(landing, in);
}

const Register misaligned_copy{"misaligned asynchronous copy", [] {
                                 alignas(16) const float in[5] = {};
                                 launch(misaligned_copy_kernel, 1, 1, 0, in + 1);
                               }};

}  // namespace
