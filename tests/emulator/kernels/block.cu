// Indices, barriers, shared memory and atomics against plain loops.
#include "harness.h"

namespace {

__global__ void indices_kernel(int* out) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[block * threads + thread] += static_cast<int>(block * threads + thread);
}

const Register indices{"indices", [] {
                         const dim3 grid(3, 2, 4), block(5, 3, 2);
                         std::vector<int> out(24 * 30), expected(24 * 30);
                         for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<int>(i);
                         launch(indices_kernel, grid, block, 0, out.data());
                         expect_equal("index", out, expected);
                       }};

// An inclusive scan by doubling: two barriers a round, in a template, with threads that returned before the first.
template <class T, int kThreads>
__global__ void scan_kernel(const T* in, T* out, unsigned n) {
  __shared__ T values[kThreads];
  const unsigned i = threadIdx.x;
  if (i >= n) return;
  values[i] = in[blockIdx.x * n + i];
  for (unsigned distance = 1; distance < n; distance *= 2) {
    __syncthreads();
    const T left = i >= distance ? values[i - distance] : T(0);
    __syncthreads();
    values[i] += left;
  }
  out[blockIdx.x * n + i] = values[i];
}

template <class T>
void scan_of() {
  constexpr unsigned blocks = 3;
  for (const unsigned n : {1u, 33u, 97u, 128u}) {
    std::vector<T> in(blocks * n), out(blocks * n), expected(blocks * n);
    for (unsigned i = 0; i < blocks * n; ++i) {
      in[i] = static_cast<T>(i * 31 % 17);
      expected[i] = in[i] + (i % n ? expected[i - 1] : T(0));
    }
    launch(scan_kernel<T, 128>, blocks, 128, 0, static_cast<const T*>(in.data()), out.data(), n);
    expect_equal("prefix", out, expected);
  }
}

const Register scan{"barriers", [] {
                      scan_of<int>();
                      scan_of<double>();
                    }};

__global__ void barrier_votes_kernel(int threshold, int* out) {
  const bool below = static_cast<int>(threadIdx.x) < threshold;
  out[threadIdx.x * 3] = __syncthreads_count(below);
  out[threadIdx.x * 3 + 1] = __syncthreads_and(below);
  out[threadIdx.x * 3 + 2] = __syncthreads_or(below);
}

const Register barrier_votes{"barrier votes", [] {
                               constexpr int threads = 70;
                               for (const int threshold : {0, 1, 69, 70}) {
                                 std::vector<int> out(threads * 3), expected;
                                 for (int i = 0; i < threads; ++i)
                                   expected.insert(expected.end(), {threshold, threshold == threads, threshold > 0});
                                 launch(barrier_votes_kernel, 1, threads, 0, threshold, out.data());
                                 expect_equal("vote", out, expected);
                               }
                             }};

// Reverses 16-byte vectors through dynamic shared memory of exactly the size asked for.
__global__ void reverse_kernel(const float4* in, float4* out) {
  float4* values = momentum::simt::dynamic_shared<float4>();
  values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

const Register dynamic_shared{"dynamic shared memory", [] {
                                constexpr unsigned threads = 96;
                                std::vector<float4> in(threads), out(threads);
                                for (unsigned i = 0; i < threads; ++i) in[i] = make_float4(static_cast<float>(i), 1, 2, 3);
                                launch(reverse_kernel, 1, threads, threads * sizeof(float4),
                                       static_cast<const float4*>(in.data()), out.data());
                                for (unsigned i = 0; i < threads; ++i) expect("x", out[i].x, in[threads - 1 - i].x);
                              }};

__global__ void integer_atomics_kernel(unsigned* histogram, int* extremes, unsigned* bits, unsigned* wheel,
                                       unsigned long long* sum) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&histogram[i % 7], 1u);
  atomicMax(&extremes[0], static_cast<int>(i * 7919 % 1009) - 500);
  atomicMin(&extremes[1], static_cast<int>(i * 7919 % 1009) - 500);
  atomicOr(&bits[0], 1u << i % 19);
  atomicAnd(&bits[1], ~(1u << i % 11));
  atomicXor(&bits[2], i * 2654435761u);
  atomicInc(&wheel[0], 9);
  atomicDec(&wheel[1], 9);
  atomicSub(&wheel[2], 3u);
  atomicAdd(sum, (1ull << 40) + i);
}

const Register integer_atomics{"integer atomics", [] {
                                 constexpr unsigned blocks = 4, threads = 96, n = blocks * threads;
                                 std::vector<unsigned> histogram(7), bits{0, ~0u, 0}, wheel{0, 9, 2000};
                                 std::vector<unsigned> expected_histogram(7), expected_bits{0, ~0u, 0};
                                 std::vector<int> extremes{-1000, 1000}, expected_extremes{-1000, 1000};
                                 unsigned long long sum = 0, expected_sum = 0;
                                 launch(integer_atomics_kernel, blocks, threads, 0, histogram.data(), extremes.data(),
                                        bits.data(), wheel.data(), &sum);
                                 for (unsigned i = 0; i < n; ++i) {
                                   const int value = static_cast<int>(i * 7919 % 1009) - 500;
                                   ++expected_histogram[i % 7];
                                   expected_extremes[0] = value > expected_extremes[0] ? value : expected_extremes[0];
                                   expected_extremes[1] = value < expected_extremes[1] ? value : expected_extremes[1];
                                   expected_bits[0] |= 1u << i % 19;
                                   expected_bits[1] &= ~(1u << i % 11);
                                   expected_bits[2] ^= i * 2654435761u;
                                   expected_sum += (1ull << 40) + i;
                                 }
                                 expect_equal("histogram", histogram, expected_histogram);
                                 expect_equal("extreme", extremes, expected_extremes);
                                 expect_equal("bits", bits, expected_bits);
                                 expect_equal("wheel", wheel, std::vector<unsigned>{n % 10, 9 - n % 10, 2000 - 3 * n});
                                 expect("sum", sum, expected_sum);
                               }};

// A maximum of doubles by compare-and-swap, sums of halves (exact in any order), and an exchange that loses nothing.
__global__ void float_atomics_kernel(unsigned long long* largest, float* single, double* twice, unsigned* token,
                                     unsigned* seen) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const double mine = static_cast<double>(i * 7919 % 1009);
  unsigned long long old = atomicAdd(largest, 0ull);
  while (__longlong_as_double(static_cast<long long>(old)) < mine) {
    const unsigned long long found = atomicCAS(largest, old, static_cast<unsigned long long>(__double_as_longlong(mine)));
    if (found == old) break;
    old = found;
  }
  atomicAdd(single, 0.5f);
  atomicAdd(twice, 0.25);
  atomicAdd(seen, atomicExch(token, i + 1));
}

const Register float_atomics{"float atomics", [] {
                               constexpr unsigned blocks = 3, threads = 64, n = blocks * threads;
                               unsigned long long largest = 0;
                               float single = 0;
                               double twice = 0, expected = 0;
                               unsigned token = 0, seen = 0;
                               launch(float_atomics_kernel, blocks, threads, 0, &largest, &single, &twice, &token, &seen);
                               for (unsigned i = 0; i < n; ++i)
                                 expected = i * 7919 % 1009 > expected ? i * 7919 % 1009 : expected;
                               expect("maximum", __longlong_as_double(static_cast<long long>(largest)), expected);
                               expect("single", single, 0.5f * n);
                               expect("double", twice, 0.25 * n);
                               expect("tokens", seen + token, n * (n + 1) / 2);
                             }};

// The block that arrives last adds up what the others left: memory handed from block to block by a fence and a counter.
__global__ void last_block_kernel(const float* in, unsigned n, float* partial, unsigned* arrived, float* out) {
  __shared__ float warps[4];
  __shared__ bool last;
  float sum = 0;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = warps[0] + warps[1] + warps[2] + warps[3];
    __threadfence();
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  float total = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) total += partial[i];
  *out = total;
  atomicExch(arrived, 0u);
}

const Register last_block{"last block", [] {
                            constexpr unsigned n = 10007, blocks = 5;
                            std::vector<float> in(n), partial(blocks);
                            float out = 0, expected = 0;
                            unsigned arrived = 0;
                            for (unsigned i = 0; i < n; ++i) expected += in[i] = static_cast<float>(i % 13);
                            for (int launches = 0; launches < 2; ++launches) {
                              launch(last_block_kernel, blocks, 128, 0, static_cast<const float*>(in.data()), n, partial.data(),
                                     &arrived, &out);
                              expect("sum", out, expected);
                              expect("counter", arrived, 0u);
                            }
                          }};

}  // namespace
