#include "cpu/convert.h"

#include "cpu/isa.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kUnit = 1024;  // elements; whole tiles of every instruction set
constexpr int64_t kGrain = 64;   // units worth waking a thread for

struct Functions {
  decltype(&baseline::convert) convert;
  decltype(&baseline::find_scales) find_scales;
};

Functions functions_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return {avx512::convert, avx512::find_scales};
  if (isa == Isa::kAvx2) return {avx2::convert, avx2::find_scales};
#endif
  return {baseline::convert, baseline::find_scales};
}

}  // namespace

void run_conversion(const Conversion& conversion, ParallelFor parallel_for) {
  const Functions run = functions_for(isa());
  if (conversion.quantise && has_matrix_scales(conversion.format, conversion.rows, conversion.cols))
    run.find_scales(conversion);
  auto body = [&](int64_t begin, int64_t end) {
    const int64_t last = end * kUnit;
    run.convert(conversion, begin * kUnit, last < conversion.numel ? last : conversion.numel);
  };
  const int64_t units = (conversion.numel + kUnit - 1) / kUnit;
  if (units == 0) return;
  parallel_for(
      0, units, kGrain, [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); },
      &body);
}

}  // namespace momentum::cpu
