// The runtime's functions, and what a launch refuses.
#include <cstring>
#include <thread>

#include "../control.h"
#include "harness.h"

namespace {

__global__ void fill_kernel(float* out, unsigned n, float value) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = value;
}

__global__ void dynamic_kernel(float* out) {
  float* values = momentum::simt::dynamic_shared<float>();
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x];
}

const Register configurations{"refused launches", [] {
                                float out[32] = {};
                                const auto fill = [&](dim3 grid, dim3 block, std::size_t shared_bytes) {
                                  return momentum::simt::launch(fill_kernel, grid, block, shared_bytes, nullptr, out, 32u,
                                                                1.0f);
                                };
                                expect("no error yet", cudaGetLastError(), cudaSuccess);
                                expect("1025 threads", fill(1, 1025, 0), cudaErrorInvalidConfiguration);
                                expect("peek", cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
                                expect("get", cudaGetLastError(), cudaErrorInvalidConfiguration);
                                expect("forgotten", cudaGetLastError(), cudaSuccess);
                                expect("64 x 32 threads", fill(1, dim3(64, 32), 0), cudaErrorInvalidConfiguration);
                                expect("z of 65", fill(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
                                expect("no block", fill(0, 32, 0), cudaErrorInvalidConfiguration);
                                expect("no thread", fill(1, 0, 0), cudaErrorInvalidConfiguration);
                                expect("y of 65536", fill(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
                                expect("nothing ran", out[0], 0.0f);
                                expect("1 x 1024", fill(1, 1024, 0), cudaSuccess);
                                expect("it ran", out[31], 1.0f);
                              }};

const Register shared_limits{
    "limits of dynamic shared memory", [] {
      float out[32] = {};
      const auto run = [&](std::size_t bytes) { return momentum::simt::launch(dynamic_kernel, 1, 32, bytes, nullptr, out); };
      const auto allow = [](int bytes) {
        return cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      };
      expect("48 KB", run(48 * 1024), cudaSuccess);
      expect("more, unasked", run(48 * 1024 + 1), cudaErrorInvalidValue);
      expect("asking for too much", allow(227 * 1024 + 1), cudaErrorInvalidValue);
      expect("asking", allow(227 * 1024), cudaSuccess);
      expect("227 KB", run(227 * 1024), cudaSuccess);
      expect("beyond", run(227 * 1024 + 1), cudaErrorInvalidValue);
    }};

const Register memory{
    "memory functions", [] {
      float *a = nullptr, *b = nullptr;
      momentum_emulator_reset_counters();
      expect("malloc", cudaMalloc(&a, 64 * sizeof(float)), cudaSuccess);
      expect("mallocAsync", cudaMallocAsync(&b, 64 * sizeof(float), nullptr), cudaSuccess);
      unsigned poison = 0;
      std::memcpy(&poison, b, sizeof poison);
      expect("fresh memory", poison, ~0u);
      expect("memset", cudaMemsetAsync(b, 0, 64 * sizeof(float), nullptr), cudaSuccess);
      launch(fill_kernel, 2, 32, 0, a, 60u, 3.0f);
      expect("memcpy", cudaMemcpyAsync(b, a, 60 * sizeof(float), cudaMemcpyDeviceToDevice, nullptr), cudaSuccess);
      expect("no wait", momentum_emulator_waits(), std::int64_t{0});
      float back = 0;
      expect("memcpy back", cudaMemcpyAsync(&back, a, sizeof back, cudaMemcpyDeviceToHost, nullptr), cudaSuccess);
      expect("read back", back, 3.0f);
      expect("synchronize", cudaStreamSynchronize(nullptr), cudaSuccess);
      expect("waits", momentum_emulator_waits(), std::int64_t{2});
      expect("copied", b[59], 3.0f);
      expect("not copied", b[60], 0.0f);
      expect("free", cudaFree(a), cudaSuccess);
      expect("freeAsync", cudaFreeAsync(b, nullptr), cudaSuccess);
      expect("waits to free", momentum_emulator_waits(), std::int64_t{3});
    }};

const Register device{
    "device attributes", [] {
      int value = 0, number = -1;
      expect("device", cudaGetDevice(&number), cudaSuccess);
      expect("number", number, 0);
      expect("other device", cudaSetDevice(1), cudaErrorInvalidDevice);
      expect("attribute", cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
      expect("multiprocessors", value, 4);
      momentum_emulator_set_multiprocessors(132);
      expect("attribute", cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
      expect("multiprocessors", value, 132);
      int blocks = 0;
      expect("occupancy", cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill_kernel, 256, 0), cudaSuccess);
      expect("blocks by threads", blocks, 8);
      expect("occupancy", cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill_kernel, 256, 100 * 1024), cudaSuccess);
      expect("blocks by shared memory", blocks, 2);
      cudaStreamCaptureStatus status{};
      expect("capture", cudaStreamIsCapturing(nullptr, &status), cudaSuccess);
      expect("none", status, cudaStreamCaptureStatusNone);
      momentum_emulator_set_capturing(1);
      expect("capture", cudaStreamIsCapturing(nullptr, &status), cudaSuccess);
      expect("active", status, cudaStreamCaptureStatusActive);
      momentum_emulator_set_capturing(0);
      momentum_emulator_set_multiprocessors(4);
    }};

const Register counters{"counters", [] {
                          std::vector<float> out(100);
                          momentum_emulator_reset_counters();
                          for (int i = 0; i < 3; ++i) launch(fill_kernel, 4, 32, 0, out.data(), 100u, 1.0f);
                          expect("launches", momentum_emulator_launches(), std::int64_t{3});
                          expect("blocks", momentum_emulator_blocks(), std::int64_t{12});
                          expect("bytes", momentum_emulator_parameter_bytes(), std::int64_t{3 * 16});
                          momentum_emulator_reset_counters();
                          expect("after a reset", momentum_emulator_launches(), std::int64_t{0});
                        }};

struct Table {
  float values[8000];
};

__global__ void table_kernel(const Table __grid_constant__ table, float* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = table.values[blockIdx.x * blockDim.x + threadIdx.x];
}

const Register large_parameters{"32 KB of parameters", [] {
                                  static Table table;
                                  for (int i = 0; i < 8000; ++i) table.values[i] = static_cast<float>(i);
                                  std::vector<float> out(8000), expected(table.values, table.values + 8000);
                                  momentum_emulator_reset_counters();
                                  launch(table_kernel, 80, 100, 0, table, out.data());
                                  expect_equal("value", out, expected);
                                  expect("bytes", momentum_emulator_parameter_bytes(), std::int64_t{32008});
                                }};

const Register concurrent{"launches from two threads", [] {
                            constexpr unsigned n = 5000;
                            std::vector<float> first(n), second(n);
                            const auto work = [](std::vector<float>& out) {
                              for (int i = 1; i <= 20; ++i)
                                launch(fill_kernel, (n + 63) / 64, 64, 0, out.data(), n, static_cast<float>(i));
                            };
                            std::thread other([&] { work(second); });
                            work(first);
                            other.join();
                            expect_equal("first", first, std::vector<float>(n, 20));
                            expect_equal("second", second, std::vector<float>(n, 20));
                          }};

}  // namespace
