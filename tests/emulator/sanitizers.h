// The sanitizers' fiber interfaces, as weak symbols: present exactly when the program is linked with a sanitizer.
// The emulator itself is never instrumented, so its own bookkeeping is invisible to TSan and only what kernels do
// counts.
#pragma once

#include <cstddef>

extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** save, const void* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* saved, const void** bottom, std::size_t* size);
}

namespace momentum::emulator {

inline bool under_tsan() { return __tsan_create_fiber != nullptr; }

// What a thread did before release(x) happens before what another does after a later acquire(x).
inline void release(void* point) {
  if (__tsan_release) __tsan_release(point);
}
inline void acquire(void* point) {
  if (__tsan_acquire) __tsan_acquire(point);
}

}  // namespace momentum::emulator
