// The sanitizers' fiber interfaces, as weak symbols: present exactly when the program is linked with a sanitizer.
// The emulator itself is never instrumented, so its own bookkeeping is invisible to TSan and only what kernels do counts.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void __tsan_java_alloc(std::uintptr_t address, std::uintptr_t size);
[[gnu::weak]] void __tsan_java_free(std::uintptr_t address, std::uintptr_t size);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** save, const void* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* saved, const void** bottom, std::size_t* size);
}

namespace momentum::emulator {

inline bool under_tsan() { return __tsan_create_fiber != nullptr; }

// A point at which threads synchronise: what one did before release() happens before what another does after a later
// acquire(). Blocks run one after another but synchronise with each other no more than on the device: consecutive
// blocks use different halves of everything, and so do the threads that run them (see scheduler.cpp).
class SyncPoint {
 public:
  void release(unsigned half = 0) {
    if (__tsan_release) __tsan_release(&halves_[half]);
  }
  void acquire(unsigned half = 0) {
    if (__tsan_acquire) __tsan_acquire(&halves_[half]);
  }

 private:
  // As large as the granules in which forget_accesses() thinks, lest a neighbour's forgetting be theirs.
  std::uint64_t halves_[2] = {};
};

// Makes TSan forget every access to a range: the next block's shared memory is another memory at the same place. The
// interface is meant for allocators of managed languages.
inline void forget_accesses(const void* address, std::size_t bytes) {
  if (!under_tsan() || bytes == 0) return;
  constexpr std::uintptr_t granule = 8;
  const auto begin = reinterpret_cast<std::uintptr_t>(address) / granule * granule;
  const auto end = (reinterpret_cast<std::uintptr_t>(address) + bytes + granule - 1) / granule * granule;
  __tsan_java_free(begin, end - begin);
  __tsan_java_alloc(begin, end - begin);
}

}  // namespace momentum::emulator
