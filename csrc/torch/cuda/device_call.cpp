// One call on a GPU: current stream and scratch memory of the torch that is loaded.
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <memory>
#include <vector>

#include "cuda/convert.h"
#include "cuda/philox.h"
#include "torch/device/run.h"
#include "torch/error.h"
#include "torch/stack.h"

namespace momentum::ops::backend {
namespace {

// The function lives in libtorch_cuda, which a wheel built against a CPU-only torch cannot link. torch loads its libraries
// locally, so that a look-up by symbol alone does not see them: ask for the library that is already loaded.
cudaStream_t current_stream(int32_t device_index) {
  using CurrentStream = AOTITorchError (*)(int32_t, void**);
  static const CurrentStream current = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library == nullptr ? nullptr : reinterpret_cast<CurrentStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  if (current == nullptr) throw std::runtime_error("momentum: CUDA tensors need a torch that is built with CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(current(device_index, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Device memory from torch's caching allocator.
TensorHandle empty(size_t bytes, int32_t device_index) {
  const auto size = int64_t(bytes);
  const int64_t stride = 1;
  AtenTensorHandle tensor = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_uint8(), aoti_torch_device_type_cuda(),
                                                  device_index, &tensor));
  return TensorHandle(tensor);
}

void* data_of(const TensorHandle& tensor) {
  void* data = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor.get(), &data));
  return data;
}

}  // namespace

// Memory from torch's caching allocator is ordered by the stream: it may be given back as soon as the work is queued.
struct DeviceCall::Scratch {
  explicit Scratch(int32_t index) : device_index(index), guard(index) {}

  int32_t device_index;
  torch::stable::accelerator::DeviceGuard guard;
  std::vector<TensorHandle> tensors;
};

DeviceCall::DeviceCall(int32_t device_index) : scratch_(new Scratch(device_index)) {
  context_.owner = scratch_;
  context_.allocate = [](size_t bytes, void* owner) -> void* {
    auto& scratch = *static_cast<Scratch*>(owner);
    scratch.tensors.push_back(empty(bytes, scratch.device_index));
    return data_of(scratch.tensors.back());
  };
  context_.reserve = [](size_t bytes, void* owner) -> std::shared_ptr<void> {
    auto tensor = std::make_shared<TensorHandle>(empty(bytes, static_cast<Scratch*>(owner)->device_index));
    return {tensor, data_of(*tensor)};
  };
  try {
    context_.stream = current_stream(device_index);
  } catch (...) {
    delete scratch_;
    throw;
  }
}

DeviceCall::~DeviceCall() { delete scratch_; }

void check_status(const char* op, cudaError_t status) {
  if (status == cudaSuccess) return;
  const char* hint = status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction
                         ? " (this build has no code for this GPU; momentum.build_info() lists the architectures it has)"
                         : "";
  refuse(op, "CUDA error ", cudaGetErrorName(status), ": ", cudaGetErrorString(status), hint);
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
