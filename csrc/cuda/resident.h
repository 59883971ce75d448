// Tables kept in device memory from step to step.
#pragma once

#include <cstddef>

#include "cuda/driver.h"

namespace momentum::cuda {

// Whether work queued on the stream is being captured into a graph. A captured launch must carry its whole table, because
// nobody would keep a resident one alive for the replays.
bool is_capturing(cudaStream_t stream);

// The `size` bytes of a table in device memory, as kernel `user` reads it. Where a table with these bytes is there already from
// an earlier call on this stream, nothing is copied. Otherwise they travel in the parameters of small launches, so that neither
// the host waits nor any host memory must outlive the call. `size` is a multiple of 8.
cudaError_t resident_table(const void* user, const void* bytes, size_t size, const Context& context, const void** table);

}  // namespace momentum::cuda
