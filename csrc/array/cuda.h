// Runs checked calls on a CUDA stream of the caller's.
#pragma once

#include <cstdint>

#include "array/call.h"
#include "array/convert.h"

namespace momentum::array {

// Returns once everything is queued; the arrays must live until the stream has passed it. Throws RuntimeError with CUDA's
// words.
void run_on_cuda(const Rule& rule, const PreparedCall& call, uintptr_t stream);
void run_on_cuda(const PreparedConversion& call, uintptr_t stream);

}  // namespace momentum::array
