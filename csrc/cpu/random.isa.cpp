#include "cpu/random.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/config.h"
#include "core/philox.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif

// A lane has one word of a counter in its lower half. What is in the upper half does not matter: products, the only operation
// that would carry it down, do not look at it.
typedef uint64_t Lanes __attribute__((vector_size(8 * kLanes)));

inline Lanes multiply(Lanes a, uint32_t b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Lanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#elif defined(__x86_64__)
  return reinterpret_cast<Lanes>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(b)));
#else
  return (a & 0xffffffffu) * b;
#endif
}

// The groups of a vector in order: two words of each are in `first`, the other two in `second`.
inline void store_groups(Lanes first, Lanes second, uint32_t* out) {
#if defined(__AVX512F__)
  const Lanes low = __builtin_shuffle(first, second, Lanes{0, 8, 1, 9, 2, 10, 3, 11});
  const Lanes high = __builtin_shuffle(first, second, Lanes{4, 12, 5, 13, 6, 14, 7, 15});
#elif defined(__AVX2__)
  const Lanes low = __builtin_shuffle(first, second, Lanes{0, 4, 1, 5});
  const Lanes high = __builtin_shuffle(first, second, Lanes{2, 6, 3, 7});
#else
  const Lanes low = __builtin_shuffle(first, second, Lanes{0, 2});
  const Lanes high = __builtin_shuffle(first, second, Lanes{1, 3});
#endif
  std::memcpy(out, &low, sizeof(low));
  std::memcpy(out + 2 * kLanes, &high, sizeof(high));
}

// The words of kVectors x kLanes groups: one vector waits for its products most of the time, several do not.
template <int kVectors>
inline void fill_groups(uint64_t seed, uint32_t step, uint64_t group, uint32_t* out) {
  Lanes lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = uint64_t(i);
  Lanes w[kVectors][4];
  MOMENTUM_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const Lanes counter = lane + (group + uint64_t(v * kLanes));
    w[v][0] = counter;
    w[v][1] = counter >> 32;
    w[v][2] = Lanes{} + step;
    w[v][3] = Lanes{};
  }
  auto key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  MOMENTUM_UNROLL
  for (int round = 0; round < philox::kRounds; ++round) {
    MOMENTUM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Lanes product0 = multiply(w[v][0], philox::kMultiplier0), product1 = multiply(w[v][2], philox::kMultiplier1);
      w[v][0] = (product1 >> 32) ^ w[v][1] ^ key0;
      w[v][1] = product1;
      w[v][2] = (product0 >> 32) ^ w[v][3] ^ key1;
      w[v][3] = product0;
    }
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  MOMENTUM_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    store_groups((w[v][0] & 0xffffffffu) | (w[v][1] << 32), (w[v][2] & 0xffffffffu) | (w[v][3] << 32), out + v * 4 * kLanes);
  }
}

// At most n words from the group of element `begin`. Returns how many.
template <int kVectors>
int64_t fill_some(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out) {
  constexpr int64_t kWords = 4 * kLanes * kVectors;
  const auto skipped = int64_t(begin & 3);
  if (skipped == 0 && n >= kWords) {
    fill_groups<kVectors>(seed, step, begin >> 2, out);
    return kWords;
  }
  uint32_t words[kWords];
  fill_groups<kVectors>(seed, step, begin >> 2, words);
  const int64_t count = n < kWords - skipped ? n : kWords - skipped;
  std::memcpy(out, words + skipped, sizeof(uint32_t) * std::size_t(count));
  return count;
}

}  // namespace

void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out) {
  for (int64_t i = 0; i < n;) {
    const bool few = n - i <= 4 * kLanes;
    i += few ? fill_some<1>(seed, step, begin + uint64_t(i), n - i, out + i)
             : fill_some<4>(seed, step, begin + uint64_t(i), n - i, out + i);
  }
}

}  // namespace momentum::cpu::MOMENTUM_ISA
