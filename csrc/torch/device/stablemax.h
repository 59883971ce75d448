// Runs StableMax with the CUDA kernels; included once by each of the two backends that have them.
#pragma once

#include "cuda/stablemax.h"
#include "torch/device/run.h"
#include "torch/stablemax_backend.h"

namespace momentum::ops::backend {

void run_stablemax_loss(const char* op, const StableMaxCall& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_stablemax_loss(call, device.context()));
}

void run_stablemax_grad(const char* op, const StableMaxCall& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_stablemax_grad(call, device.context()));
}

}  // namespace momentum::ops::backend
