#include "cpu/random.h"

#include "cpu/isa.h"

namespace momentum::cpu {

void fill_words(uint64_t seed, uint32_t step, uint64_t begin, int64_t n, uint32_t* out) {
#if defined(__x86_64__)
  if (isa() >= Isa::kAvx512) return avx512::fill_words(seed, step, begin, n, out);
  if (isa() == Isa::kAvx2) return avx2::fill_words(seed, step, begin, n, out);
#endif
  baseline::fill_words(seed, step, begin, n, out);
}

}  // namespace momentum::cpu
