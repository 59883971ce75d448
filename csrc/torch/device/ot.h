// Solves a batch with the CUDA kernels; defined for each of the two backends that have them.
#pragma once

#include "cuda/ot/solve.h"
#include "torch/device/run.h"
#include "torch/ot/backend.h"

namespace momentum::ops::backend {

inline void solve_transport_on_device(const char* op, const ot::Batch& batch, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::ot::solve(batch, device.context()));
}

}  // namespace momentum::ops::backend
