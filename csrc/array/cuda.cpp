#include "array/cuda.h"

#include <stdexcept>
#include <string>

#if defined(MOMENTUM_HAVE_CUDA)
#include "cuda/convert.h"
#endif

namespace momentum::array {

#if defined(MOMENTUM_HAVE_CUDA)

namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("momentum.array: ") + cudaGetErrorString(error));
}

class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_));
    check(cudaSetDevice(device));
  }
  DeviceGuard(const DeviceGuard&) = delete;
  ~DeviceGuard() { (void)cudaSetDevice(previous_); }

 private:
  int previous_ = 0;
};

// Scratch memory in stream order: freed behind the work that uses it.
class Scratch {
 public:
  explicit Scratch(cudaStream_t stream) : stream_(stream) {}
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    for (void* block : blocks_) (void)cudaFreeAsync(block, stream_);
  }

  static void* allocate(size_t bytes, void* owner) {
    auto* scratch = static_cast<Scratch*>(owner);
    void* block = nullptr;
    if (cudaMallocAsync(&block, bytes, scratch->stream_) != cudaSuccess) return nullptr;
    scratch->blocks_.push_back(block);
    return block;
  }

 private:
  cudaStream_t stream_;
  std::vector<void*> blocks_;
};

template <class Run>
void run_on(int device, uintptr_t stream, Run run) {
  const DeviceGuard guard(device);
  const auto handle = reinterpret_cast<cudaStream_t>(stream);
  Scratch scratch(handle);
  check(run(cuda::Context{handle, Scratch::allocate, &scratch}));
}

}  // namespace

void run_on_cuda(const Rule& rule, const PreparedCall& call, uintptr_t stream) {
  run_on(call.device.id, stream, [&](const cuda::Context& context) { return rule.run_on_cuda(call.step, context); });
}

void run_on_cuda(const PreparedConversion& call, uintptr_t stream) {
  run_on(call.device.id, stream, [&](const cuda::Context& context) { return cuda::run_conversion(call.conversion, context); });
}

#else

namespace {

[[noreturn]] void refuse() { throw std::runtime_error("momentum.array: this build has no CUDA kernels"); }

}  // namespace

void run_on_cuda(const Rule&, const PreparedCall&, uintptr_t) { refuse(); }
void run_on_cuda(const PreparedConversion&, uintptr_t) { refuse(); }

#endif

}  // namespace momentum::array
