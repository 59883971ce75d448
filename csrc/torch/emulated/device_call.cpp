// One call under the emulator: scratch memory from the heap, filled with NaN so that a read before a write shows.
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/convert.h"
#include "cuda/philox.h"
#include "torch/device/run.h"
#include "torch/error.h"

namespace momentum::ops::backend {

struct DeviceCall::Scratch {
  std::vector<std::unique_ptr<double[]>> blocks;
};

DeviceCall::DeviceCall(int32_t) : scratch_(new Scratch) {
  context_.owner = scratch_;
  context_.allocate = [](size_t bytes, void* owner) -> void* {
    const size_t count = (bytes + 7) / 8;
    auto& blocks = static_cast<Scratch*>(owner)->blocks;
    blocks.push_back(std::make_unique<double[]>(count));
    std::memset(blocks.back().get(), 0xff, count * 8);
    return blocks.back().get();
  };
  context_.reserve = [](size_t bytes, void*) -> std::shared_ptr<void> {
    return std::shared_ptr<double[]>(new double[(bytes + 7) / 8]);
  };
}

DeviceCall::~DeviceCall() { delete scratch_; }

void check_status(const char* op, cudaError_t status) {
  if (status != cudaSuccess) refuse(op, "emulated CUDA error ", cudaGetErrorName(status), ": ", cudaGetErrorString(status));
}

void run_conversion(const char* op, const Conversion& conversion, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status(op, cuda::run_conversion(conversion, device.context()));
}

void run_philox(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count, int32_t device_index) {
  const DeviceCall device(device_index);
  check_status("philox", cuda::fill_philox(seed, step, offset, out, count, device.context()));
}

}  // namespace momentum::ops::backend
