// Operations that are no step under whatever sanitizer the program was built with:
//   lists cuda   the CUDA kernels on the emulator, compared with the CPU kernels
//   lists cpu    the CPU kernels on four threads, compared with themselves on one
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/formats/formats.h"
#include "cpu/lists.h"
#include "cpu/pieces.h"
#include "cpu/samgs.h"
#include "cpu/stablemax.h"
#include "cuda/lists.h"
#include "cuda/samgs.h"
#include "cuda/stablemax.h"

namespace {

using namespace momentum;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};
constexpr int64_t kSizes[] = {0, 1, 5, 259, 8193, 20001};
constexpr int kTasks = 3;

// A tensor that ends where its memory ends, `offset` elements off its alignment.
class Tensor {
 public:
  Tensor(DType dtype, int64_t numel, int offset, int seed) : dtype_(dtype), numel_(numel) {
    const int64_t item = item_size(dtype);
    memory_ = std::make_unique<unsigned char[]>(size_t((numel + offset) * item));
    data_ = memory_.get() + offset * item;
    for (int64_t i = 0; i < numel; ++i) set(i, double((i * 37 + seed * 101) % 1009) / 256 - 2);
  }
  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  int64_t numel() const { return numel_; }
  double get(int64_t i) const {
    return formats::with_format(dtype_, [&](auto format) {
      using Format = decltype(format);
      return Format::template load<double>(static_cast<const typename Format::Storage*>(data())[i]);
    });
  }
  void set(int64_t i, double value) {
    formats::with_format(dtype_, [&](auto format) {
      using Format = decltype(format);
      static_cast<typename Format::Storage*>(data())[i] = Format::template store<double>(value);
    });
  }

 private:
  DType dtype_;
  int64_t numel_;
  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* data_;
};

using Tensors = std::vector<Tensor>;

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

// How an operation is run: on the emulator, or on the CPU with threads or without.
struct Machine {
  bool emulated;
  cpu::ParallelFor parallel_for;
};

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <class Op>
void run(const Machine& machine, const lists::Call<Op>& call) {
  if (machine.emulated) return check(cuda::run_list(call, cuda::Context{}));
  std::vector<int64_t> sizes;
  for (const lists::Tensors& t : call.tensors) sizes.push_back(t.numel);
  cpu::over_pieces(sizes, machine.parallel_for,
                   [&](int64_t i, int64_t begin, int64_t end) { cpu::baseline::list_range(call, i, begin, end); });
}

// Tensors of all sizes, dtypes and alignments, `streams` of each, one stream after the other.
Tensors make(int streams) {
  Tensors all;
  for (int s = 0; s < streams; ++s) {
    for (const int64_t size : kSizes) {
      for (const DType dtype : kDTypes) all.emplace_back(dtype, size, int(size + s) % 3, s);
    }
  }
  return all;
}

template <class Op>
Tensors over_lists(const Machine& machine, const Op& op) {
  Tensors all = make(Op::kStreams);
  lists::Call<Op> call{op, {}};
  const size_t count = all.size() / Op::kStreams;
  for (size_t i = 0; i < count; ++i) {
    lists::Tensors t;
    t.numel = all[i].numel();
    for (size_t s = 0; s < Op::kStreams; ++s) {
      t.streams[s] = all[i + s * count].data();
      t.dtypes[s] = all[i + s * count].dtype();
    }
    call.tensors.push_back(t);
  }
  run(machine, call);
  return all;
}

Tensors extrapolate(const Machine& machine) { return over_lists(machine, lists::Extrapolate{0.5, true}); }

Tensors move(const Machine& machine) {
  const double losses[] = {1.5, 1.25};
  lists::Move op;
  op.size = 0.01;
  op.lr = 0.01;
  op.clip = 100;
  op.floor = -1;
  op.losses = losses;
  op.wide_losses = true;
  return over_lists(machine, op);
}

Tensors clear(const Machine& machine) {
  Tensors all = make(1);
  std::vector<Bytes> bytes;
  for (const Tensor& t : all) bytes.push_back({t.data(), t.numel() * item_size(t.dtype())});
  if (machine.emulated) {
    check(cuda::clear_list(bytes, cuda::Context{}));
  } else {
    std::vector<int64_t> sizes;
    for (const Bytes& b : bytes) sizes.push_back(b.size);
    cpu::over_pieces(sizes, machine.parallel_for, [&](int64_t i, int64_t begin, int64_t end) {
      std::memset(static_cast<char*>(bytes[size_t(i)].data) + begin, 0, size_t(end - begin));
    });
  }
  return all;
}

Tensors samgs_step(const Machine& machine) {
  Tensors all = make(1 + kTasks);  // results, gradients, then averages
  const size_t count = all.size() / (1 + kTasks);
  std::vector<void*> averages(count * kTasks);
  std::vector<const void*> grads(count * kTasks);
  SamgsCall call;
  for (size_t i = 0; i < count; ++i) {
    SamgsTensor t;
    t.out = all[i].data();
    t.out_dtype = t.grad_dtype = all[i].dtype();
    t.numel = all[i].numel();
    t.exp_avgs = averages.data() + i * kTasks;
    t.grads = grads.data() + i * kTasks;
    call.tensors.push_back(t);
  }
  for (size_t task = 0; task < kTasks; ++task) {
    for (size_t i = 0; i < count; ++i) {
      const DType dtype = all[i].dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
      all.emplace_back(dtype, all[i].numel(), int(task), int(task) + 7);
    }
  }
  for (size_t task = 0; task < kTasks; ++task) {
    for (size_t i = 0; i < count; ++i) {
      grads[i * kTasks + task] = all[(1 + task) * count + i].data();
      averages[i * kTasks + task] = all[(1 + kTasks + task) * count + i].data();
    }
  }
  Tensor squares(DType::kFloat64, 40 * kTasks, 0, 3), state(DType::kFloat64, 2, 0, 3),
      weights(DType::kFloat64, kTasks + 2, 0, 3);
  for (int64_t i = 0; i < squares.numel(); ++i) squares.set(i, double(1 + i * i));
  state.set(0, 0.25);
  state.set(1, 3);
  const auto at = [](const Tensor& t) { return static_cast<double*>(t.data()); };
  const SamgsDecision decision{at(squares), at(state), at(weights), kTasks, 40, 0.9, 0.99, 0.1};
  call.weights = at(weights);
  call.tasks = kTasks;
  call.beta1 = 0.9;
  if (machine.emulated) {
    check(cuda::decide_samgs(decision, cuda::Context{}));
    check(cuda::run_samgs(call, cuda::Context{}));
  } else {
    cpu::decide_samgs(decision);
    std::vector<int64_t> sizes;
    for (const SamgsTensor& t : call.tensors) sizes.push_back(t.numel);
    cpu::over_pieces(sizes, machine.parallel_for,
                     [&](int64_t i, int64_t begin, int64_t end) { cpu::baseline::samgs_range(call, i, begin, end); });
  }
  all.push_back(std::move(state));
  all.push_back(std::move(weights));
  return all;
}

Tensors stablemax_pass(const Machine& machine) {
  Tensors all;
  for (const DType dtype : kDTypes) {
    for (const int64_t classes : {1, 7, 300, 2051}) {
      constexpr int64_t kRows = 11;
      const DType arithmetic = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
      const Tensor logits(dtype, kRows * classes, 1, 2);
      std::vector<int64_t> target(kRows);
      for (int64_t row = 0; row < kRows; ++row) target[size_t(row)] = row == 4 ? -100 : row * 5 % classes;
      const size_t first = all.size();
      all.emplace_back(arithmetic, kRows, 0, 1);
      all.emplace_back(DType::kFloat64, kRows, 0, 1);
      all.emplace_back(dtype, kRows * classes, 2, 1);
      StableMaxCall call;
      call.logits = logits.data();
      call.target = target.data();
      call.losses = all[first].data();
      call.rest = static_cast<double*>(all[first + 1].data());
      call.grad = all[first + 2].data();
      call.rows = kRows;
      call.classes = classes;
      call.ignore_index = -100;
      call.dtype = dtype;
      if (machine.emulated) {
        check(cuda::run_stablemax_loss(call, cuda::Context{}));
        check(cuda::run_stablemax_grad(call, cuda::Context{}));
        continue;
      }
      for (auto* rows : {cpu::baseline::stablemax_loss, cpu::baseline::stablemax_grad}) {
        auto body = [&](int64_t begin, int64_t end) { rows(call, begin, end); };
        machine.parallel_for(
            0, kRows, 1, [](int64_t b, int64_t e, void* context) { (*static_cast<decltype(body)*>(context))(b, e); }, &body);
      }
    }
  }
  return all;
}

struct Case {
  const char* name;
  Tensors (*run)(const Machine&);
};

constexpr Case kCases[] = {
    {"extrapolate", extrapolate}, {"move", move}, {"clear", clear}, {"samgs", samgs_step}, {"stablemax", stablemax_pass}};

// CPU and CUDA kernels differ by roundings, threads by nothing.
void compare(const char* name, const Tensors& actual, const Tensors& expected, bool exact) {
  for (size_t t = 0; t < actual.size(); ++t) {
    const DType dtype = actual[t].dtype();
    const double unit = dtype == DType::kBFloat16 ? 0x1p-7 : dtype == DType::kFloat16 ? 0x1p-10 : 0x1p-18;
    for (int64_t i = 0; i < actual[t].numel(); ++i) {
      const double x = actual[t].get(i), y = expected[t].get(i);
      if (x == y || (!exact && std::fabs(x - y) <= unit * (std::fabs(y) + 1e-2))) continue;
      std::fprintf(stderr, "%s: element %lld of tensor %zu is %.9g, expected %.9g\n", name, static_cast<long long>(i), t, x, y);
      std::exit(1);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const bool emulated = count > 1 && std::strcmp(arguments[1], "cuda") == 0;
  for (const Case& c : kCases) {
    const Tensors expected = c.run({false, serially}), actual = c.run({emulated, on_four_threads});
    compare(c.name, actual, expected, !emulated);
    std::printf("%s\n", c.name);
  }
}
