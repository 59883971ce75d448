#include "torch/cpu/run.h"

#include <torch/csrc/stable/library.h>

#include "cpu/convert.h"
#include "cpu/driver.h"
#include "cpu/random.h"

namespace momentum::ops::backend {

namespace {

void parallel_for(int64_t begin, int64_t end, int64_t grain, cpu::RangeBody body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
}

}  // namespace

void run_on_cpu(const cpu::Kernels& kernels, const StepCall& call) { cpu::run_step(kernels, call, parallel_for); }

void run_conversion(const char*, const Conversion& conversion, int32_t) { cpu::run_conversion(conversion, parallel_for); }

void run_philox(uint64_t seed, uint32_t step, int64_t offset, uint32_t* out, int64_t count, int32_t) {
  cpu::fill_words(seed, step, uint64_t(offset), count, out);
}

}  // namespace momentum::ops::backend
