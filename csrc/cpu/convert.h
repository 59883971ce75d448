// Quantising and dequantising on the CPU.
#pragma once

#include "core/conversion.h"
#include "cpu/driver.h"

namespace momentum::cpu {

void run_conversion(const Conversion& conversion, ParallelFor parallel_for);

// Elements [begin, end), or the maxima of the rows and columns of all, for each instruction set; `begin` is a border of tiles.
namespace baseline {
void convert(const Conversion& conversion, int64_t begin, int64_t end);
void find_scales(const Conversion& conversion);
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
void convert(const Conversion& conversion, int64_t begin, int64_t end);
void find_scales(const Conversion& conversion);
}  // namespace avx2
namespace avx512 {
void convert(const Conversion& conversion, int64_t begin, int64_t end);
void find_scales(const Conversion& conversion);
}  // namespace avx512
#endif

}  // namespace momentum::cpu
