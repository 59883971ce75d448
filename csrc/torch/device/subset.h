// Steps on a subset with the CUDA kernels; included by each of the two backends that have them.
#pragma once

#include "cuda/subset.h"
#include "torch/device/run.h"
#include "torch/subset_backend.h"

namespace momentum::ops::backend {

template <class Rule>
void run_subset(const char* op, const SubsetCall& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_subset<Rule>(call, device.context()));
}

template void run_subset<rules::Adam>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Lion>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Sgd>(const char*, const SubsetCall&, int32_t);
template void run_subset<rules::Spam>(const char*, const SubsetCall&, int32_t);

}  // namespace momentum::ops::backend
