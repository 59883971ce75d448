// Steps on subsets under whatever sanitizer the program was built with:
//   subset cuda   the CUDA driver on the emulator, compared with the CPU driver
//   subset cpu    the CPU driver on four threads, compared with itself on one
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "cpu/isa.h"
#include "cpu/subset.h"
#include "cuda/subset.h"

namespace {

using namespace momentum;

struct Case {
  const char* name;
  Axis axis;
  Rest rest;
  bool restart;
  double density;
};

// Draws that keep states, and draws that do not; all units, none, and some.
constexpr Case kCases[] = {
    {"elements", Axis::kTensor, Rest::kFrozen, false, 0.3}, {"restart", Axis::kTensor, Rest::kSign, true, 0.25},
    {"columns", Axis::kColumn, Rest::kGradient, true, 0.4}, {"rows", Axis::kRow, Rest::kDecay, true, 0.4},
    {"all", Axis::kTensor, Rest::kSign, true, 1.0},         {"none", Axis::kRow, Rest::kSign, true, 0.0},
};

constexpr int64_t kShapes[][2] = {{1, 1}, {0, 3}, {5, 7}, {3, 260}, {300, 5}, {1, 3000}, {64, 32}};
constexpr int kSteps = 3, kInterval = 2;
constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16};

// Memory of exactly its size, with the same numbers for equal seeds: in [0.5, 1), as float32 or as pairs of bfloat16.
struct Memory {
  Memory(int64_t bytes, uint64_t seed) : data(new unsigned char[size_t(bytes)]), size(size_t(bytes)) {
    for (int64_t i = 0; i + 2 <= bytes; i += 2) {
      const auto half = uint16_t(0x3f00u | (philox_word(seed, 0, uint64_t(i)) & 0x7fu));
      std::memcpy(data.get() + i, &half, 2);
    }
  }
  bool operator==(const Memory& other) const { return std::memcmp(data.get(), other.data.get(), size) == 0; }

  std::unique_ptr<unsigned char[]> data;
  size_t size;
};

struct Problem {
  Problem(const Case& c, int states, bool is_part) {
    call.options = {c.axis, c.rest, 0.5f, kInterval, c.restart ? 1 : 0, c.restart};
    call.common.decay = DecayMode::kDecoupled;
    call.common.hypers[0] = 0.5;
    for (const auto& shape : kShapes) {
      SubsetTensor t;
      t.numel = shape[0] * shape[1];
      t.rows = c.axis == Axis::kTensor ? 1 : shape[0];
      t.cols = c.axis == Axis::kTensor ? t.numel : shape[1];
      const auto place = int64_t(call.tensors.size());
      const int64_t local = c.axis == Axis::kRow ? t.rows : t.cols;
      t.units = local;
      if (is_part) {  // of a whole of about three times as many; elements in lines that are as long as rows
        const bool in_lines = c.axis == Axis::kTensor && shape[0] > 1;
        if (in_lines) t.rows = shape[0], t.cols = shape[1], t.stride = 2 * shape[1] + 1;
        t.start = local + 5;
        t.units = t.start + (in_lines ? t.rows * t.stride : local) + 7;
      }
      t.count = int64_t(c.density * double(t.units));
      const SubsetLines lines = make_lines(c.axis, t);
      t.param_dtype = kDTypes[place % 2];
      t.grad_dtype = kDTypes[place / 2 % 2];
      t.param = add(t.numel * item_size(t.param_dtype));
      t.grad = add(t.numel * item_size(t.grad_dtype));
      const int64_t size = lines.room * (c.axis == Axis::kRow ? t.cols : t.rows);
      for (int k = 0; k < states; ++k) {
        t.states[k] = reinterpret_cast<float*>(add(size * 4));
        std::fill(t.states[k], t.states[k] + size, 0.0f);
      }
      if (t.count != 0 && t.count != t.units) {
        const int64_t words = mask_words(lines, t.rows);
        t.mask = reinterpret_cast<uint32_t*>(add(words * 4));
        std::fill(t.mask, t.mask + words, 0u);
      }
      t.lr = 0.01;
      t.weight_decay = 0.1;
      t.seed = uint64_t(place);
      call.tensors.push_back(t);
    }
    steps.assign(call.tensors.size() + 1, 0.0f);
    call.common.steps = steps.data();
  }

  unsigned char* add(int64_t bytes) {
    memory.emplace_back(bytes, memory.size());
    return memory.back().data.get();
  }

  std::vector<Memory> memory;
  std::vector<float> steps;
  SubsetCall call;
};

void serially(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  if (begin < end) body(begin, end, context);
}

void on_four_threads(int64_t begin, int64_t end, int64_t, cpu::RangeBody body, void* context) {
  std::vector<std::thread> threads;
  const int64_t part = (end - begin + 3) / 4;
  for (int64_t first = begin; first < end; first += part) {
    threads.emplace_back(body, first, std::min(end, first + part), context);
  }
  for (std::thread& thread : threads) thread.join();
}

template <class Rule>
void check(const Case& c, bool emulated, bool is_part) {
  Problem actual(c, subset_states<Rule>(), is_part), expected(c, subset_states<Rule>(), is_part);
  for (int step = 1; step <= kSteps; ++step) {
    cpu::run_subset(cpu::subset_kernels<Rule>(), expected.call, serially);
    if (emulated) {
      if (cuda::run_subset<Rule>(actual.call, {}) != cudaSuccess) std::exit(1);
    } else {
      cpu::run_subset(cpu::subset_kernels<Rule>(), actual.call, on_four_threads);
    }
    if (actual.memory == expected.memory && actual.steps == expected.steps) continue;
    std::fprintf(stderr, "%s, %s%s, step %d: other bits\n", Rule::kName, c.name, is_part ? " of a part" : "", step);
    std::exit(1);
  }
}

}  // namespace

int main(int, char** arguments) {
  std::puts(cpu::name(cpu::isa()));
  const bool emulated = std::strcmp(arguments[1], "cuda") == 0;
  for (const Case& c : kCases) {
    check<rules::Adam>(c, emulated, false);
    check<rules::Adam>(c, emulated, true);
    check<rules::Lion>(c, emulated, true);
    check<rules::Sgd>(c, emulated, false);
    check<rules::Spam>(c, emulated, false);
    std::puts(c.name);
  }
}
