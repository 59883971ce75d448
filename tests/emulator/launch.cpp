// A launch: checked as the runtime and the device would, then run block by block.
#include "launch.h"

#include <map>
#include <mutex>

#include "control.h"
#include "schedule.h"
#include "shared_memory.h"

namespace momentum::emulator {

namespace {

std::mutex one_launch_at_a_time;
const Launch* running = nullptr;

std::map<const void*, std::size_t>& dynamic_shared_limits() {
  static std::map<const void*, std::size_t> limits;
  return limits;
}

cudaError_t check(const Launch& launch) {
  const dim3 grid = launch.grid, shape = launch.block;
  const bool shape_fits = shape.x >= 1 && shape.x <= 1024 && shape.y >= 1 && shape.y <= 1024 && shape.z >= 1 && shape.z <= 64 &&
                          shape.x * shape.y * shape.z <= max_threads;
  const bool grid_fits =
      grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535;
  if (!shape_fits || !grid_fits) return cudaErrorInvalidConfiguration;
  const auto limit = dynamic_shared_limits().find(launch.kernel);
  const std::size_t allowed = limit == dynamic_shared_limits().end() ? default_dynamic_shared_bytes : limit->second;
  return launch.dynamic_shared_bytes <= allowed ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

const void* running_kernel() { return running ? running->kernel : nullptr; }

void allow_dynamic_shared_bytes(const void* kernel, std::size_t bytes) {
  const std::lock_guard lock(one_launch_at_a_time);
  dynamic_shared_limits()[kernel] = bytes;
}

cudaError_t run(const Launch& launch) {
  const std::lock_guard lock(one_launch_at_a_time);
  if (const cudaError_t error = check(launch); error != cudaSuccess) return error;
  running = &launch;
  count_launch(launch);
  const SharedAllocation dynamic(launch.dynamic_shared_bytes);
  block.dynamic_shared = dynamic.data();
  const dim3 grid = block.grid = launch.grid;
  shape_block(launch.block);
  const Schedule schedule(std::uint64_t{grid.x} * grid.y * grid.z);
  for (std::uint64_t step = 0; step < schedule.count(); ++step) {
    const std::uint64_t linear = schedule[step];
    renew_shared_memory(block.dynamic_shared, launch.dynamic_shared_bytes);
    run_block({static_cast<unsigned>(linear % grid.x), static_cast<unsigned>(linear / grid.x % grid.y),
               static_cast<unsigned>(linear / grid.x / grid.y)},
              launch.run_thread, launch.arguments);
  }
  join_blocks();
  running = nullptr;
  return cudaSuccess;
}

}  // namespace momentum::emulator
