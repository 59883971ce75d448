// Random words on the CPU, many of Philox's counters at a time.
#pragma once

#include <cstdint>

namespace momentum::cpu {

// out[i] is the word of element begin + i of a whole tensor: see philox_group. For the processor at hand, and for each
// instruction set.
void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out);
namespace baseline {
void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out);
}
#if defined(__x86_64__)
namespace avx2 {
void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out);
}
namespace avx512 {
void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out);
}
namespace avx512vbmi {
void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out);
}
#endif

}  // namespace momentum::cpu
