// Shuffles, votes, matches and reductions against plain loops.
#include "harness.h"

namespace {

constexpr unsigned kWarp = 32, kThreads = 64;

template <class T>
T value_of(unsigned thread) {
  return static_cast<T>(thread * 37 % 101) + static_cast<T>(0.25);
}

enum Kind { kPlain, kUp, kDown, kXor };

template <class T>
__global__ void shuffle_kernel(T* out, int kind, int width, int operand) {
  const T value = value_of<T>(threadIdx.x);
  T got{};
  if (kind == kPlain) got = __shfl_sync(0xffffffffu, value, operand, width);
  if (kind == kUp) got = __shfl_up_sync(0xffffffffu, value, operand, width);
  if (kind == kDown) got = __shfl_down_sync(0xffffffffu, value, operand, width);
  if (kind == kXor) got = __shfl_xor_sync(0xffffffffu, value, operand, width);
  out[threadIdx.x] = got;
}

// The lane that a shuffle reads, from the definitions in the CUDA programming guide.
int source_lane(int lane, int kind, int width, int operand) {
  const int first = lane / width * width, within = lane % width;
  switch (kind) {
    case kPlain:
      return first + operand % width;
    case kUp:
      return within >= operand ? lane - operand : lane;
    case kDown:
      return within + operand < width ? lane + operand : lane;
    default:
      return (lane ^ operand) < first + width ? lane ^ operand : lane;
  }
}

template <class T>
void shuffles_of() {
  for (const int width : {1, 4, 16, 32}) {
    for (const int kind : {kPlain, kUp, kDown, kXor}) {
      for (const int operand : {0, 1, 3, 7, 16, 31}) {
        std::vector<T> out(kThreads), expected(kThreads);
        launch(shuffle_kernel<T>, 1, kThreads, 0, out.data(), kind, width, operand);
        for (unsigned i = 0; i < kThreads; ++i) {
          const int lane = static_cast<int>(i % kWarp);
          expected[i] = value_of<T>(i - i % kWarp + static_cast<unsigned>(source_lane(lane, kind, width, operand)));
        }
        expect_equal("shuffle", out, expected);
      }
    }
  }
}

const Register shuffles{"shuffles", [] {
                          shuffles_of<int>();
                          shuffles_of<unsigned long long>();
                          shuffles_of<float>();
                          shuffles_of<double>();
                        }};

// Two halves of a warp, each with its own mask and its own number of rounds.
__global__ void halves_kernel(int* out) {
  const bool upper = threadIdx.x % 32 >= 16;
  const unsigned mask = upper ? 0xffff0000u : 0x0000ffffu;
  int sum = static_cast<int>(threadIdx.x);
  for (int distance = upper ? 8 : 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
  __syncwarp();
  out[threadIdx.x] = sum;
}

const Register halves{"halves of a warp", [] {
                        std::vector<int> out(32), expected(32);
                        launch(halves_kernel, 1, 32, 0, out.data());
                        for (int i = 0; i < 32; ++i) {
                          const int group = i < 16 ? 4 : 16, first = i / group * group;
                          for (int j = first; j < first + group; ++j) expected[static_cast<std::size_t>(i)] += j;
                        }
                        expect_equal("sum", out, expected);
                      }};

// Lanes that have returned take no part, nor do those beyond the end of a partial warp.
__global__ void survivors_kernel(unsigned* ballots, int* sums) {
  if (threadIdx.x % 5 == 0) return;
  ballots[threadIdx.x] = __ballot_sync(0xffffffffu, threadIdx.x % 2);
  sums[threadIdx.x] = __reduce_add_sync(0xffffffffu, 1);
}

const Register survivors{"returned lanes", [] {
                           constexpr unsigned threads = 45;
                           std::vector<unsigned> ballots(threads), expected_ballots(threads);
                           std::vector<int> sums(threads), expected_sums(threads);
                           launch(survivors_kernel, 1, threads, 0, ballots.data(), sums.data());
                           for (unsigned i = 0; i < threads; ++i) {
                             if (i % 5 == 0) continue;
                             for (unsigned j = i / kWarp * kWarp; j < threads && j / kWarp == i / kWarp; ++j) {
                               if (j % 5 == 0) continue;
                               expected_ballots[i] |= j % 2 << j % kWarp;
                               ++expected_sums[i];
                             }
                           }
                           expect_equal("ballot", ballots, expected_ballots);
                           expect_equal("sum", sums, expected_sums);
                         }};

__global__ void votes_kernel(int threshold, unsigned* ballot, int* any, int* all, unsigned* same) {
  const unsigned i = threadIdx.x;
  const int predicate = static_cast<int>(i % 32) < threshold;
  ballot[i] = __ballot_sync(0xffffffffu, predicate);
  any[i] = __any_sync(0xffffffffu, predicate);
  all[i] = __all_sync(0xffffffffu, predicate);
  same[i] = __match_any_sync(0xffffffffu, i % 3);
}

const Register votes{"votes", [] {
                       for (const int threshold : {0, 1, 17, 31, 32}) {
                         std::vector<unsigned> ballot(32), same(32), expected_ballot(32), expected_same(32);
                         std::vector<int> any(32), all(32);
                         launch(votes_kernel, 1, 32, 0, threshold, ballot.data(), any.data(), all.data(), same.data());
                         for (unsigned i = 0; i < 32; ++i) {
                           for (unsigned j = 0; j < 32; ++j) {
                             expected_ballot[i] |= static_cast<unsigned>(static_cast<int>(j) < threshold) << j;
                             expected_same[i] |= static_cast<unsigned>(i % 3 == j % 3) << j;
                           }
                         }
                         expect_equal("ballot", ballot, expected_ballot);
                         expect_equal("any", any, std::vector<int>(32, threshold > 0));
                         expect_equal("all", all, std::vector<int>(32, threshold == 32));
                         expect_equal("match", same, expected_same);
                       }
                     }};

__global__ void reductions_kernel(int* out) {
  const int value = static_cast<int>(threadIdx.x * 7919 % 251) - 100;
  const unsigned bits = threadIdx.x * 2654435761u;
  const int results[] = {__reduce_add_sync(0xffffffffu, value),
                         __reduce_min_sync(0xffffffffu, value),
                         __reduce_max_sync(0xffffffffu, value),
                         static_cast<int>(__reduce_and_sync(0xffffffffu, bits | 5u)),
                         static_cast<int>(__reduce_or_sync(0xffffffffu, bits & 0xff00u)),
                         static_cast<int>(__reduce_xor_sync(0xffffffffu, bits))};
  for (int i = 0; i < 6; ++i) out[threadIdx.x * 6 + i] = results[i];
}

const Register reductions{"reductions", [] {
                            int add = 0, least = 1000, most = -1000;
                            unsigned all = ~0u, any = 0, odd = 0;
                            for (unsigned i = 0; i < kWarp; ++i) {
                              const int value = static_cast<int>(i * 7919 % 251) - 100;
                              const unsigned bits = i * 2654435761u;
                              add += value;
                              least = value < least ? value : least;
                              most = value > most ? value : most;
                              all &= bits | 5u;
                              any |= bits & 0xff00u;
                              odd ^= bits;
                            }
                            const int expected_of_lane[] = {
                                add, least, most, static_cast<int>(all), static_cast<int>(any), static_cast<int>(odd)};
                            std::vector<int> out(kWarp * 6), expected;
                            for (unsigned i = 0; i < kWarp; ++i)
                              expected.insert(expected.end(), expected_of_lane, expected_of_lane + 6);
                            launch(reductions_kernel, 1, kWarp, 0, out.data());
                            expect_equal("reduction", out, expected);
                          }};

// Shared memory passed from lane to lane under __syncwarp alone.
__global__ void exchange_kernel(int* out) {
  __shared__ int slots[kThreads];
  const unsigned i = threadIdx.x, first = i - i % 32;
  slots[i] = static_cast<int>(i);
  for (unsigned round = 0; round < 5; ++round) {
    __syncwarp();
    const int got = slots[first + (i + 1) % 32];
    __syncwarp();
    slots[i] = got;
  }
  out[i] = slots[i];
}

const Register exchange{"syncwarp", [] {
                          std::vector<int> out(kThreads), expected(kThreads);
                          launch(exchange_kernel, 1, kThreads, 0, out.data());
                          for (unsigned i = 0; i < kThreads; ++i) expected[i] = static_cast<int>(i - i % 32 + (i + 5) % 32);
                          expect_equal("slot", out, expected);
                        }};

}  // namespace
