// Runs calls with the CUDA kernels: on a GPU in _C_cuda, under the emulator in _C_emulated.
#pragma once

#include "cuda/driver.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

// The stream, the device guard and the scratch memory of one call; cuda/device_call.cpp and emulated/device_call.cpp.
class DeviceCall {
 public:
  explicit DeviceCall(int32_t device_index);
  ~DeviceCall();
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  const cuda::Context& context() const { return context_; }

 private:
  struct Scratch;
  Scratch* scratch_;
  cuda::Context context_;
};

// Refuses when the driver or a launch reported an error.
void check_status(const char* op, cudaError_t status);

template <class Rule>
void run(const char* op, const StepCall& call, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_step<Rule>(call, device.context()));
}

}  // namespace momentum::ops::backend
