#include "cpu/lists.h"

#include <cstddef>

#include "cpu/random.h"
#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

// Whole pairs, of which the last may reach one element further. `begin` is even.
template <class T>
void fill_noise(uint64_t seed, uint32_t step, int64_t begin, int n, T* __restrict out) {
  static_assert(kTile % 2 == 0);
  uint32_t words[kTile];
  const int pairs = (n + 1) / 2;
  fill_words(seed, step, uint64_t(begin), 2 * pairs, words);
  for (int k = 0; k < pairs; ++k) {
    const NormalPair pair = normal_pair(words[2 * k], words[2 * k + 1]);
    out[2 * k] = T(pair.cosine);
    out[2 * k + 1] = T(pair.sine);
  }
}

template <class Op, class T>
void run_range(const lists::Call<Op>& call, int64_t index, int64_t begin, int64_t end) {
  constexpr int kStreams = Op::kStreams;
  const lists::Tensors& t = call.tensors[std::size_t(index)];
  const Op& op = call.op;
  const auto scalars = op.template prepare<T>();
  T x[kStreams][kTile] = {};
  T noise[kTile] = {};
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = int(end - i < kTile ? end - i : kTile);
    for (int s = 0; s < kStreams; ++s) {
      if ((op.reads() >> s & 1u) != 0) decode<T>(t.dtypes[s], t.streams[s], i, n, x[s]);
    }
    if constexpr (Op::kNoise) {
      if (op.draw) fill_noise(lists::tensor_seed(op.seed, uint32_t(index)), op.step, i, n, noise);
    }
    for (int v = 0; v < n; ++v) {
      T values[kStreams];
      for (int s = 0; s < kStreams; ++s) values[s] = x[s][v];
      Op::element(scalars, noise[v], values);
      for (int s = 0; s < kStreams; ++s) x[s][v] = values[s];
    }
    for (int s = 0; s < kStreams; ++s) {
      if ((op.writes() >> s & 1u) != 0) encode<T>(t.dtypes[s], t.streams[s], i, n, x[s]);
    }
  }
}

}  // namespace

template <class Op>
void list_range(const lists::Call<Op>& call, int64_t index, int64_t begin, int64_t end) {
  const bool wide = call.tensors[std::size_t(index)].dtypes[0] == DType::kFloat64;
  wide ? run_range<Op, double>(call, index, begin, end) : run_range<Op, float>(call, index, begin, end);
}

template void list_range(const lists::Call<lists::Extrapolate>&, int64_t, int64_t, int64_t);
template void list_range(const lists::Call<lists::Move>&, int64_t, int64_t, int64_t);

}  // namespace momentum::cpu::MOMENTUM_ISA
