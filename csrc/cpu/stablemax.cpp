#include "cpu/stablemax.h"

#include "cpu/isa.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kGrain = 65536;  // elements worth waking a thread for

using Rows = void (*)(const StableMaxCall&, int64_t, int64_t);

void run(const StableMaxCall& call, ParallelFor parallel_for, Rows rows) {
  if (call.rows == 0) return;
  auto body = [&](int64_t begin, int64_t end) { rows(call, begin, end); };
  const int64_t grain = kGrain / (call.classes > 0 ? call.classes : 1) + 1;
  parallel_for(
      0, call.rows, grain,
      [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); }, &body);
}

Rows choose([[maybe_unused]] Rows avx512, [[maybe_unused]] Rows avx2, Rows baseline) {
#if defined(__x86_64__)
  if (isa() >= Isa::kAvx512) return avx512;
  if (isa() == Isa::kAvx2) return avx2;
#endif
  return baseline;
}

}  // namespace

#if defined(__x86_64__)
void run_stablemax_loss(const StableMaxCall& call, ParallelFor parallel_for) {
  run(call, parallel_for, choose(avx512::stablemax_loss, avx2::stablemax_loss, baseline::stablemax_loss));
}
void run_stablemax_grad(const StableMaxCall& call, ParallelFor parallel_for) {
  run(call, parallel_for, choose(avx512::stablemax_grad, avx2::stablemax_grad, baseline::stablemax_grad));
}
#else
void run_stablemax_loss(const StableMaxCall& call, ParallelFor parallel_for) {
  run(call, parallel_for, choose(nullptr, nullptr, baseline::stablemax_loss));
}
void run_stablemax_grad(const StableMaxCall& call, ParallelFor parallel_for) {
  run(call, parallel_for, choose(nullptr, nullptr, baseline::stablemax_grad));
}
#endif

}  // namespace momentum::cpu
