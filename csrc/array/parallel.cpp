#include "array/parallel.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace momentum::array {
namespace {

std::atomic<int> thread_count{0};

}  // namespace

void set_num_threads(int count) { thread_count = count; }

int get_num_threads() {
  const int count = thread_count;
  return count > 0 ? count : std::max(1, int(std::thread::hardware_concurrency()));
}

void parallel_for(int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context) {
  const int64_t count = end - begin;
  const int64_t wanted = std::clamp<int64_t>(count / std::max<int64_t>(1, grain), 1, get_num_threads());
  const int64_t share = (count + wanted - 1) / wanted;
  std::vector<std::jthread> threads;
  for (int64_t first = begin + share; first < end; first += share) {
    const int64_t last = std::min(end, first + share);
    try {
      threads.emplace_back(body, first, last, context);
    } catch (const std::system_error&) {  // the process may have no more: do the share here
      body(first, last, context);
    }
  }
  body(begin, std::min(end, begin + share), context);
}

}  // namespace momentum::array
