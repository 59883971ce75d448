// Steps by moments of the gradient (core/rule.h) where these are codes of the usual maps in blocks, for AVX-512: the same loops
// for all rules, compiled once for each processor they are written for.
#pragma once

#include "cpu/kernels.h"

namespace momentum::cpu {

// Whether elements [begin, end) of step `number` of a tensor are for these loops, which then have stepped them.
bool step_moments(const Task& task, const Frame<float>& frame, const Moments<float>& moments, uint32_t number, int64_t begin,
                  int64_t end);

#if defined(__x86_64__)
namespace avx512 {
bool step_moments(const Task& task, const Frame<float>& frame, const Moments<float>& moments, uint32_t number, int64_t begin,
                  int64_t end);
}
namespace avx512vbmi {
bool step_moments(const Task& task, const Frame<float>& frame, const Moments<float>& moments, uint32_t number, int64_t begin,
                  int64_t end);
}
#endif

}  // namespace momentum::cpu
