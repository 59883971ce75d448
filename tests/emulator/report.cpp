#include "report.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <tuple>

#include "launch.h"
#include "scheduler.h"
#include "warp.h"

namespace momentum::emulator {

namespace {

// A file and offset that addr2line turns into the kernel's name.
std::string describe_kernel(const void* kernel) {
  Dl_info info{};
  if (!kernel || !dladdr(kernel, &info) || !info.dli_fname) return "unknown";
  char offset[24];
  std::snprintf(offset, sizeof offset, "+0x%zx",
                static_cast<std::size_t>(static_cast<const char*>(kernel) - static_cast<const char*>(info.dli_fbase)));
  return std::string(info.dli_fname) + offset;
}

std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

// "0-6, 9"
class Ranges {
 public:
  void add(unsigned value) {
    if (!text_.empty() && value == last_ + 1) {
      last_ = value;
      return;
    }
    text_ = text();
    if (!text_.empty()) text_ += ", ";
    text_ += std::to_string(value);
    first_ = last_ = value;
  }
  std::string text() const { return first_ == last_ ? text_ : text_ + "-" + std::to_string(last_); }

 private:
  std::string text_;
  unsigned first_ = 0, last_ = 0;
};

[[noreturn]] void stop(const std::string& message) {
  std::fprintf(stderr, "momentum emulator: %s\n", message.c_str());
  if (running_kernel())
    std::fprintf(stderr, "  in block %s of kernel %s\n", triple(block.index.x, block.index.y, block.index.z).c_str(),
                 describe_kernel(running_kernel()).c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace

std::string place(const std::source_location& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

void fail(const std::string& message) {
  if (!current) stop(message);
  stop(message + "\n  in thread " + triple(current->index.x, current->index.y, current->index.z));
}

void report_deadlock() {
  std::map<std::tuple<Wait, std::string, std::uint32_t>, Ranges> groups;
  Ranges exited;
  for (unsigned linear = 0; linear < block.threads; ++linear) {
    const Thread& stuck = thread(linear);
    if (stuck.state == State::exited) {
      exited.add(linear);
    } else {
      const std::uint32_t mask = stuck.wait == Wait::warp ? awaited_lanes(linear) : 0;
      groups[{stuck.wait, place(stuck.where), mask}].add(linear);
    }
  }
  std::string message = "deadlock: no thread of the block can go on";
  for (const auto& [what, threads] : groups) {
    const auto& [wait, where, mask] = what;
    message += "\n  threads " + threads.text() + " wait at " + where;
    if (wait == Wait::barrier) {
      message += " for the rest of the block";
    } else {
      char lanes[11];
      std::snprintf(lanes, sizeof lanes, "0x%08x", mask);
      message += std::string(" for the lanes of mask ") + lanes;
    }
  }
  if (!exited.text().empty()) message += "\n  threads " + exited.text() + " have returned";
  stop(message);
}

}  // namespace momentum::emulator
