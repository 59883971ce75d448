// Runs SAM-GS with the CUDA kernels; included once by each of the two backends that have them.
#pragma once

#include "cuda/samgs.h"
#include "torch/device/run.h"
#include "torch/samgs_backend.h"

namespace momentum::ops::backend {

void decide_samgs(const char* op, const SamgsDecision& decision, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::decide_samgs(decision, device.context()));
}

void run_samgs(const char* op, const SamgsCall& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_samgs(call, device.context()));
}

}  // namespace momentum::ops::backend
