// Runs every rule, in every scenario, under whatever sanitizer the program was built with:
//   steps cuda   the CUDA driver on the emulator, compared with the CPU driver
//   steps cpu    the CPU driver on four threads, compared with itself on one
// Says which instruction set the CPU's kernels were of, then which rules came through.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/philox.h"
#include "core/selection.h"
#include "cpu/isa.h"
#include "cuda/philox.h"
#include "problem.h"

namespace momentum::sanitizers {
namespace {

constexpr int kSteps = 2;  // enough for the shortest intervals to end, and for a table to be used again

void serially(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  if (begin < end) body(begin, end, context);
}

// Whatever the grain: even the smallest call is cut into four.
void on_four_threads(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  std::vector<std::thread> threads;
  const int64_t part = (end - begin + 3) / 4;
  for (int64_t first = begin; first < end; first += part) {
    threads.emplace_back(body, first, std::min(end, first + part), context);
  }
  for (std::thread& thread : threads) thread.join();
}

// Scratch memory of exactly the size asked for, filled with NaN.
class Scratch {
 public:
  cuda::Context context(bool resident_tables) {
    cuda::Context made;
    made.owner = this;
    if (resident_tables) {
      made.reserve = [](size_t bytes, void*) -> std::shared_ptr<void> { return std::make_shared<unsigned char[]>(bytes); };
    }
    made.allocate = [](size_t bytes, void* owner) -> void* {
      auto& block = static_cast<Scratch*>(owner)->blocks_.emplace_back(std::make_unique<unsigned char[]>(bytes));
      std::memset(block.get(), 0xff, bytes);
      return block.get();
    };
    return made;
  }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> blocks_;
};

void on_the_emulator(const Subject& subject, const Scenario& scenario, const StepCall& call) {
  Scratch scratch;
  const cudaError_t error = subject.run_cuda(call, scratch.context(scenario.resident_tables));
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", subject.name, cudaGetErrorString(error));
  std::exit(1);
}

// For values that depend on a sum of rounded terms, added in another order: 2^-18 for a float, as the sum has at most 2^6
// terms in a row; one unit of a 16-bit format, where that decides how a value is rounded.
double tolerance(const Stream& stream, double value) {
  const bool summed_in_float = stream.dtype() == DType::kFloat32 || stream.name() == "totals";
  const double unit = stream.dtype() == DType::kBFloat16  ? 0x1p-7
                      : stream.dtype() == DType::kFloat16 ? 0x1p-10
                      : summed_in_float                   ? 0x1p-18
                                                          : 0x1p-40;
  return unit * std::max(1.0, std::abs(value));
}

// What a selection leaves where states are codes. The CPU decodes them as steps times (unit times scale), the GPU as (steps
// times unit) times scale: numbers differ in their last bits, and so do the bins that these are counted in. The k-th largest
// does not, to rounding. Returns where the totals of other reductions begin; -1 if a k-th largest is wrong.
int64_t compare_selected(const Stream& actual, const Stream& expected, int64_t tensors) {
  int64_t begin = 0;
  for (int k = 0; k < kSelectionPasses - 1; ++k) begin += tensors * selection_width(k);
  constexpr int kLast = kSelectionPasses - 1;
  for (int64_t t = 0; t < tensors; ++t, begin += selection_width(kLast)) {
    const auto magnitude = [&](const Stream& totals) {
      return bit_cast<float>(uint32_t(totals.get(begin + selection_bins(kLast) + kSelectedDigits)));
    };
    const double x = magnitude(actual), y = magnitude(expected);
    if (std::abs(x - y) <= tolerance(actual, y)) continue;
    std::fprintf(stderr, "the magnitude selected of tensor %lld is %.9g, expected %.9g\n", static_cast<long long>(t), x, y);
    return -1;
  }
  return begin;
}

void compare(const Subject& subject, const Scenario& scenario, int step, const Problem& actual, const Problem& expected,
             bool exact) {
  for (size_t s = 0; s < actual.written().size(); ++s) {
    const DType dtype = actual.written()[s].dtype();
    if (dtype == DType::kCodes) continue;              // CPU and GPU may decide ties differently
    if (dtype == DType::kLowBits && !exact) continue;  // the parameter is compared to its own precision
    const Stream &a = actual.written()[s], &e = expected.written()[s];
    int64_t begin = 0;
    if (subject.selects && scenario.quantised() && !exact && a.name() == "totals") {
      begin = compare_selected(a, e, int64_t(actual.call().tensors.size()));
    }
    if (begin < 0) {
      std::fprintf(stderr, "in %s, %s, step %d\n", subject.name, scenario.name, step);
      std::exit(1);
    }
    for (int64_t i = begin; i < a.numel(); ++i) {
      const double x = a.get(i), y = e.get(i);
      if (x == y || (!exact && std::abs(x - y) <= tolerance(a, y))) continue;
      std::fprintf(stderr, "%s, %s, step %d: %s element %lld is %.9g, expected %.9g\n", subject.name, scenario.name, step,
                   a.name().c_str(), static_cast<long long>(i), x, y);
      std::exit(1);
    }
  }
}

template <class Run>
void run_stages(const Scenario& scenario, Problem& problem, Run&& run) {
  StepCall& call = problem.call();
  if (!scenario.staged || call.stage != kWholeStep) return run(call);
  const int map = 2 * problem.reductions();
  if (call.common.perpendicular != nullptr) {
    for (call.stage = map + 1; call.stage <= map + 2; ++call.stage) run(call);
  }
  for (call.stage = 0; call.stage <= map; ++call.stage) run(call);
  call.stage = kWholeStep;
}

void check(const Subject& subject, const Scenario& scenario, int variant, bool emulated) {
  Problem actual(subject, scenario, variant), expected(subject, scenario, variant);
  const Problem untouched(subject, scenario, variant);
  for (int step = 1; step <= kSteps; ++step) {
    actual.draw_gradients(step);
    expected.draw_gradients(step);
    run_stages(scenario, expected, [&](const StepCall& call) { subject.run_cpu(call, serially); });
    run_stages(scenario, actual, [&](const StepCall& call) {
      if (emulated) {
        on_the_emulator(subject, scenario, call);
      } else {
        subject.run_cpu(call, on_four_threads);
      }
    });
    // No bits differ where only the number of threads does, nor where nothing is summed and no dynamic bytes are decoded: see
    // compare_selected.
    const bool in_bytes = formats::is_dynamic(scenario.signed_map) && formats::code_bits(scenario.signed_map) == 8;
    const bool summed = actual.reductions() > 0 || actual.call().common.perpendicular != nullptr;
    const bool exact = !emulated || !(in_bytes || summed);
    // Another choice between two equally near codes moves the steps that follow.
    if (scenario.quantised() && emulated && step > 1) continue;
    compare(subject, scenario, step, actual, scenario.found_inf ? untouched : expected, exact || scenario.found_inf);
  }
}

void check_philox() {
  for (const int64_t count : {0, 1, 5, 4097}) {
    std::vector<uint32_t> words(static_cast<size_t>(count));
    words.shrink_to_fit();
    if (cuda::fill_philox(7, 3, 2, words.data(), count, cuda::Context{}) != cudaSuccess) std::abort();
    for (int64_t i = 0; i < count; ++i) {
      if (words[size_t(i)] != philox_word(7, 3, uint64_t(i + 2))) std::abort();
    }
  }
}

}  // namespace
}  // namespace momentum::sanitizers

int main(int argc, char** argv) {
  using namespace momentum::sanitizers;
  const bool emulated = argc == 2 && std::strcmp(argv[1], "cuda") == 0;
  if (!emulated && (argc != 2 || std::strcmp(argv[1], "cpu") != 0)) {
    std::fprintf(stderr, "usage: steps cuda|cpu\n");
    return 2;
  }
  std::puts(momentum::cpu::name(momentum::cpu::isa()));
  if (emulated) check_philox();
  for (const Subject& subject : subjects()) {
    int variant = 0;
    for (const Scenario& scenario : scenarios()) check(subject, scenario, variant++, emulated);
    std::puts(subject.name);
  }
}
