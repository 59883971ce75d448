// The order in which threads, or blocks, are given their turns.
#pragma once

#include <cstdint>
#include <vector>

namespace momentum::emulator {

enum class Order : int { forward = 0, reverse = 1, permuted = 2 };

// A permutation of [0, count) in the order that is set when it is made.
class Schedule {
 public:
  Schedule() = default;
  explicit Schedule(std::uint64_t count);

  std::uint64_t count() const { return count_; }
  std::uint64_t operator[](std::uint64_t step) const;

 private:
  std::uint64_t count_ = 0;
  Order order_ = Order::forward;
  std::uint64_t stride_ = 1, offset_ = 0;
};

// Order and seed of the schedules made from now on; initially from MOMENTUM_EMULATOR_ORDER ("2" or "2:seed").
void set_order(Order order, std::uint64_t seed);

}  // namespace momentum::emulator
