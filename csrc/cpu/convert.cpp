#include "cpu/convert.h"

#include "cpu/isa.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kUnit = 1024;  // elements; whole tiles of every instruction set
constexpr int64_t kGrain = 64;   // units worth waking a thread for

auto convert_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return avx512::convert;
  if (isa == Isa::kAvx2) return avx2::convert;
#endif
  return baseline::convert;
}

}  // namespace

void run_conversion(const Conversion& conversion, ParallelFor parallel_for) {
  auto body = [&, convert = convert_for(isa())](int64_t begin, int64_t end) {
    const int64_t last = end * kUnit;
    convert(conversion, begin * kUnit, last < conversion.numel ? last : conversion.numel);
  };
  const int64_t units = (conversion.numel + kUnit - 1) / kUnit;
  if (units == 0) return;
  parallel_for(
      0, units, kGrain, [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); },
      &body);
}

}  // namespace momentum::cpu
