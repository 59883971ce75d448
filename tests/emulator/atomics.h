// Atomic functions, as relaxed atomics of the host: TSan sees them as atomic and, as on the device, they order no
// other memory. A fence does (language.h).
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace momentum::emulator {

// Replaces *address by next(*address) and returns what was there.
template <class T, class Next>
T update_atomically(T* address, Next next) {
  using Bits =
      std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  static_assert(sizeof(Bits) == sizeof(T));
  auto* bits = reinterpret_cast<Bits*>(address);
  Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    const T old = std::bit_cast<T>(seen);
    const T replacement = next(old);
    if (__atomic_compare_exchange_n(bits, &seen, std::bit_cast<Bits>(replacement), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return old;
  }
}

template <class T>
concept AtomicInteger = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

template <class T>
concept AtomicNumber = AtomicInteger<T> || std::is_same_v<T, float> || std::is_same_v<T, double>;

template <class T>
concept AtomicOrdered = AtomicInteger<T> || std::is_same_v<T, long long>;

}  // namespace momentum::emulator

template <momentum::emulator::AtomicNumber T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return static_cast<T>(old + value); });
}
template <momentum::emulator::AtomicInteger T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return static_cast<T>(old - value); });
}
template <momentum::emulator::AtomicOrdered T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return old < value ? value : old; });
}
template <momentum::emulator::AtomicOrdered T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
  requires momentum::emulator::AtomicInteger<T> || std::is_same_v<T, float>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T) { return value; });
}
template <class T>
  requires momentum::emulator::AtomicInteger<T> || std::is_same_v<T, unsigned short>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return old == expected ? value : old; });
}
template <momentum::emulator::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return old & value; });
}
template <momentum::emulator::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return old | value; });
}
template <momentum::emulator::AtomicInteger T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return momentum::emulator::update_atomically(address, [=](T old) { return old ^ value; });
}
// Counts up to `limit` and starts again at 0.
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return momentum::emulator::update_atomically(address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return momentum::emulator::update_atomically(address,
                                               [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}
