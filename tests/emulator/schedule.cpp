#include "schedule.h"

#include <cstdlib>
#include <numeric>

#include "report.h"

namespace momentum::emulator {

namespace {

struct Setting {
  Order order;
  std::uint64_t seed;
};

Setting from_environment() {
  const char* text = std::getenv("MOMENTUM_EMULATOR_ORDER");
  if (!text || !*text) return {Order::forward, 0};
  char* end = nullptr;
  const long order = std::strtol(text, &end, 10);
  const std::uint64_t seed = *end == ':' ? std::strtoull(end + 1, &end, 10) : 0;
  if (*end || order < 0 || order > 2) fail("MOMENTUM_EMULATOR_ORDER is 0, 1, 2 or 2:seed, not " + std::string(text));
  return {static_cast<Order>(order), seed};
}

Setting& setting() {
  static Setting current = from_environment();
  return current;
}

// SplitMix64: any seed, even a small one, gives well spread bits.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

void set_order(Order order, std::uint64_t seed) { setting() = {order, seed}; }

Schedule::Schedule(std::uint64_t count) : count_(count), order_(setting().order) {
  if (order_ != Order::permuted) return;
  // An affine map with a stride coprime to the count visits everything once, without a table of up to 2^31 blocks.
  const std::uint64_t bits = mix(setting().seed);
  offset_ = bits % count;
  stride_ = mix(bits) % count;
  while (std::gcd(stride_, count) != 1) ++stride_;
}

std::uint64_t Schedule::operator[](std::uint64_t step) const {
  switch (order_) {
    case Order::forward:
      return step;
    case Order::reverse:
      return count_ - 1 - step;
    case Order::permuted:
      break;
  }
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(step) * stride_ + offset_) % count_);
}

}  // namespace momentum::emulator
