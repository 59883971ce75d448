// Runs operations over lists with the CUDA kernels; included once by each of the two backends that have them.
#pragma once

#include "cuda/lists.h"
#include "torch/device/run.h"
#include "torch/lists_backend.h"

namespace momentum::ops::backend {

void run_list(const char* op, const lists::Call<lists::Extrapolate>& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_list(call, device.context()));
}

void run_list(const char* op, const lists::Call<lists::Move>& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_list(call, device.context()));
}

void clear_list(const char* op, const std::vector<Bytes>& tensors, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::clear_list(tensors, device.context()));
}

}  // namespace momentum::ops::backend
