#include "control.h"

#include <string>

#include "report.h"
#include "schedule.h"

namespace momentum::emulator {

namespace {

int multiprocessor_count = 4;
bool is_capturing = false;
struct Counters {
  std::int64_t launches = 0, blocks = 0, parameter_bytes = 0, waits = 0;
} counters;

}  // namespace

void count_launch(const Launch& launch) {
  ++counters.launches;
  counters.blocks += std::int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  counters.parameter_bytes += static_cast<std::int64_t>(launch.parameter_bytes);
}

void count_wait() { ++counters.waits; }

int multiprocessors() { return multiprocessor_count; }
bool capturing() { return is_capturing; }

}  // namespace momentum::emulator

using namespace momentum::emulator;

void momentum_emulator_set_order(int order, std::uint64_t seed) {
  if (order < 0 || order > 2) fail("there is no order " + std::to_string(order));
  set_order(static_cast<Order>(order), seed);
}
void momentum_emulator_set_multiprocessors(int count) { multiprocessor_count = count; }
void momentum_emulator_set_capturing(int value) { is_capturing = value != 0; }
void momentum_emulator_reset_counters() { counters = {}; }
std::int64_t momentum_emulator_launches() { return counters.launches; }
std::int64_t momentum_emulator_blocks() { return counters.blocks; }
std::int64_t momentum_emulator_parameter_bytes() { return counters.parameter_bytes; }
std::int64_t momentum_emulator_waits() { return counters.waits; }
