#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/resident.h"
#include "cuda/simt.h"

namespace momentum::cuda {
namespace {

constexpr size_t kUploadWords = 4064;  // of 8 bytes: a launch's parameters hold little more
constexpr int kUploadThreads = 256;
constexpr size_t kMaxTables = 64;  // the one that was not used for longest is dropped

struct Upload {
  uint64_t words[kUploadWords];
};

__global__ void __launch_bounds__(kUploadThreads)
    upload_kernel(const Upload __grid_constant__ upload, uint64_t* target, uint32_t count) {
  for (uint32_t i = threadIdx.x; i < count; i += kUploadThreads) target[i] = upload.words[i];
}

cudaError_t copy_to_device(const std::vector<uint64_t>& words, uint64_t* target, cudaStream_t stream) {
  const auto upload = std::make_unique<Upload>();
  for (size_t begin = 0; begin < words.size(); begin += kUploadWords) {
    const size_t count = std::min(kUploadWords, words.size() - begin);
    std::memcpy(upload->words, words.data() + begin, count * sizeof(uint64_t));
    const cudaError_t error =
        simt::launch(upload_kernel, 1, kUploadThreads, 0, stream, *upload, target + begin, uint32_t(count));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

struct Table {
  const void* user;
  int device;
  cudaStream_t stream;
  std::vector<uint64_t> words;
  std::shared_ptr<void> memory;
  uint64_t used;  // when, by count of calls
};

struct Tables {
  std::mutex mutex;
  std::vector<Table> list;
  uint64_t calls = 0;
};

// Never destroyed: the owner of the memory may be gone before this library's static objects are.
Tables& tables() {
  static Tables& all = *new Tables;
  return all;
}

}  // namespace

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) == cudaSuccess) return status != cudaStreamCaptureStatusNone;
  cudaGetLastError();  // asking is an error on a stream that a capture elsewhere forbids to use
  return true;
}

cudaError_t resident_table(const void* user, const void* bytes, size_t size, const Context& context, const void** table) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  Tables& all = tables();
  const std::lock_guard lock(all.mutex);
  const auto is_same = [&](const Table& t) {
    return t.user == user && t.device == device && t.stream == context.stream && t.words.size() * sizeof(uint64_t) == size &&
           std::memcmp(t.words.data(), bytes, size) == 0;
  };
  auto found = std::find_if(all.list.begin(), all.list.end(), is_same);
  if (found == all.list.end()) {
    std::vector<uint64_t> words(size / sizeof(uint64_t));
    std::memcpy(words.data(), bytes, size);
    std::shared_ptr<void> memory = context.reserve(size, context.owner);
    const cudaError_t error = copy_to_device(words, static_cast<uint64_t*>(memory.get()), context.stream);
    if (error != cudaSuccess) return error;
    if (all.list.size() == kMaxTables) {
      const auto older = [](const Table& a, const Table& b) { return a.used < b.used; };
      all.list.erase(std::min_element(all.list.begin(), all.list.end(), older));
    }
    all.list.push_back({user, device, context.stream, std::move(words), std::move(memory), 0});
    found = all.list.end() - 1;
  }
  found->used = ++all.calls;
  *table = found->memory.get();
  return cudaSuccess;
}

}  // namespace momentum::cuda
