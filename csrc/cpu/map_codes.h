// The map of tensors whose states are codes in blocks, of 4 bits or dynamic ones of 8: decoded, stepped and measured in
// registers, a vector at a time. Only the new states pass through first-level cache, because a block must be seen whole before
// its first code is known.
//
// A map is a set of constants here, so one loop per rule serves all maps of a width, for a parameter and gradient in float32 or
// bfloat16. The loop is bound by vector instructions, of which a processor does two in a cycle at best, not by memory: what it
// saves is a store and two loads of each state, products by one, and, with bfloat16, shuffles. Encoding the tile before in the
// same loop is slower.
#pragma once

#include <algorithm>

#include "core/prepare.h"
#include "cpu/codecs.h"
#include "cpu/kernels.h"
#include "cpu/stream.h"
#include "cpu/vector_math.h"

namespace momentum::cpu::MOMENTUM_ISA {

// Whether the update of a rule takes vectors: its numbers then have a type of their own, apart from its scalars'. For AVX-512
// alone: with half as many registers, half as wide, a step in vectors is no faster than the loop that the compiler makes of
// numbers.
template <class Rule>
constexpr bool steps_vectors() {
#if defined(__AVX512F__)
  return requires(const typename Rule::template Scalars<float>& scalars, Floats v, Floats* states) {
    Rule::template update<float>(scalars, v, v, states, v);
  };
#else
  return false;
#endif
}

// What a map of the kind that has such constants has.
template <class Constants>
constexpr const Constants* constants_of(CodeMap map) {
  if constexpr (Codec<Constants>::kBits == 8) {
    if (map == CodeMap::kDynamic8) return &kConstants<CodeMap::kDynamic8>;
    if (map == CodeMap::kUnsignedDynamic8) return &kConstants<CodeMap::kUnsignedDynamic8>;
  } else {
    if (map == CodeMap::kDynamic4) return &kConstants<CodeMap::kDynamic4>;
    if (map == CodeMap::kDynamic4MinusOne) return &kConstants<CodeMap::kDynamic4MinusOne>;
    if (map == CodeMap::kUnsignedDynamic4) return &kConstants<CodeMap::kUnsignedDynamic4>;
    if (map == CodeMap::kLinear4) return &kConstants<CodeMap::kLinear4>;
  }
  return nullptr;
}

// Whether `task`, whose first `active` states are stored, is for this map, all its codes of one kind. The flags of a frame
// would cost every vector a test.
template <class Constants>
static inline bool has_codes(const Task& task, int active, const Frame<float>& frame) {
  const TensorArgs& t = *task.tensor;
  for (int k = 0; k < active; ++k) {
    if (t.state_dtypes[k] != DType::kCodes) return false;
    const StateFormat& format = task.common->state_formats[k];
    if (constants_of<Constants>(format.map) == nullptr || has_matrix_scales(format, t.rows, t.cols)) return false;
  }
  return t.ema == nullptr && frame.l2 == 0.0f && !frame.cautious;
}

// The codes of one state, from the first of a tile.
template <class Constants>
struct Codes {
  const Constants* constants;
  const uint8_t* codes;
  const void* scales;
  DType scale_dtype;
  int shift;  // log2 of the block's size

  // For the block of element i; its numbers come multiplied by `factor`.
  typename Codec<Constants>::Decoder decoder(int i, float factor = 1.0f) const { return {*constants, scale(i) * factor}; }
  float scale(int i) const { return formats::load_scale(scales, scale_dtype, i >> shift); }

  // From element `begin` of the tensor on, the first of a block.
  void move_to(const TensorArgs& t, int k, int64_t begin) {
    codes = at<uint8_t>(t.states[k], begin * Codec<Constants>::kBits / 8);
    scales = at<uint8_t>(t.scales[k], (begin >> shift) * int64_t(item_size(scale_dtype)));
  }
};

template <class Constants>
static inline Codes<Constants> make_codes(const StateFormat& format) {
  return {constants_of<Constants>(format.map), nullptr, nullptr, format.scale_dtype, __builtin_ctz(unsigned(format.block))};
}

// The order of the elements of a pair of vectors.
template <class Number>
inline constexpr Order kOrderOf = std::is_same_v<Number, float> ? Order::kRising : Order::kAlternating;

// What is known of the maps of a step's states and of its frame, by which its loops differ.
struct AnyMaps {
  static constexpr bool kPlain = false, kOthersSigned = true;
};
// The frame's grad_factor and decay_after are 1.
struct PlainFrame {
  static constexpr bool kPlain = true, kOthersSigned = true;
};
// And all states but the first are in unsigned maps.
struct PlainFrameSecondMoments {
  static constexpr bool kPlain = true, kOthersSigned = false;
};

// `n` elements, a multiple of a pair of vectors. The new states go to `states`, in that order; most[k][r] is made the largest
// magnitude of new state k in run r, as bits and lane by lane. A run is a part of a block of every state.
//
// Bytes take so long to decode that those of each pair are while the pair before is stepped: the processor would look too few
// instructions ahead to overlap that with the roots and quotients by itself.
template <class Rule, int kActive, class Constants, class Known, class Number>
static void step_vectors(Frame<float> frame, const typename Rule::template Scalars<float>& scalars, int n, int run,
                         Number* __restrict p, const Number* __restrict g, const Codes<Constants>* coded,
                         float (*__restrict states)[kTile], Ints (*__restrict most)[kTileBlocks]) {
  using Decoder = typename Codec<Constants>::Decoder;
  constexpr int kBits = Codec<Constants>::kBits;
  constexpr Order kOrder = kOrderOf<Number>;
  constexpr bool kAhead = kBits == 8;
  const typename Rule::template Scalars<float> s = scalars;
  frame.l2 = 0.0f;
  frame.cautious = false;
  if constexpr (Known::kPlain) frame.grad_factor = frame.decay_after = 1.0f;
  for (int begin = 0, r = 0; begin < n; begin += run, ++r) {
    const int end = begin + run < n ? begin + run : n;
    Decoder decoders[kActive];
    Ints largest[kActive] = {};
    Floats next[2][kMaxStates] = {};
    const auto decode = [&](int i) __attribute__((always_inline)) {
      decode_pair<kBits, kOrder, true>(decoders[0], coded[0].codes, i, next[0][0], next[1][0]);
      for (int k = 1; k < kActive; ++k) {
        decode_pair<kBits, kOrder, Known::kOthersSigned>(decoders[k], coded[k].codes, i, next[0][k], next[1][k]);
      }
    };
    const auto step = [&](int i, auto is_last) __attribute__((always_inline)) {
      Floats x[2][kMaxStates], grad[2], value[2];
      if constexpr (!kAhead) decode(i);
      std::memcpy(x, next, sizeof(x));
      if constexpr (kAhead && !is_last) decode(i + kPair);
      load_pair(g + i, grad[0], grad[1]);
      load_pair(p + i, value[0], value[1]);
      for (int j = 0; j < 2; ++j) {
        step_element<Rule, float>(frame, s, grad[j], value[j], x[j], Floats{});
        for (int k = 0; k < kActive; ++k) {
          store(states[k] + i + j * kVector, x[j][k]);
          const Ints bits = as_ints(x[j][k]) & 0x7fffffff;
          largest[k] = bits > largest[k] ? bits : largest[k];
        }
      }
      store_pair(p + i, value[0], value[1]);
    };
    for (int k = 0; k < kActive; ++k) decoders[k] = coded[k].decoder(begin);
    if constexpr (kAhead) decode(begin);
    for (int i = begin; i < end - (kAhead ? kPair : 0); i += kPair) step(i, std::false_type());
    if constexpr (kAhead) step(end - kPair, std::true_type());
    for (int k = 0; k < kActive; ++k) most[k][r] = largest[k];
  }
}

template <class Rule, int kActive, class Constants>
class CodesMap {
 public:
  CodesMap(const Task& task, const Prepared<Rule, float>& prepared)
      : t_(*task.tensor),
        common_(*task.common),
        prepared_(prepared),
        step_(uint32_t(prepared.context.step)),
        param_(t_, common_, step_, buffers_[0], buffers_[1], random_),
        grad_(make_stream<float>(t_.grad, t_.grad_dtype, buffers_[2])) {
    halves_ = param_.is_plain(DType::kBFloat16) && t_.grad_dtype == DType::kBFloat16;
    for (int k = 0; k < kActive; ++k) {
      const StateFormat& format = common_.state_formats[k];
      states_[k] = StateStream<float>(t_, common_, k, step_, values_[k], random_, nullptr);
      coded_[k] = make_codes<Constants>(format);
      run_ = format.block < run_ ? format.block : run_;
      second_moments_ = second_moments_ && (k == 0) != formats::is_unsigned(format.map);
    }
  }

  void operator()(int64_t begin, int n) {
    if (halves_) {
      step(begin, n, static_cast<uint16_t*>(t_.param) + begin, at<uint16_t>(t_.grad, begin));
    } else {
      float* p = param_.open(begin, n);
      step(begin, n, p, grad_.open(begin, n, true));
      param_.close(begin, n, p);
    }
  }

 private:
  static constexpr int kBits = Codec<Constants>::kBits;

  template <class Number>
  void step(int64_t begin, int n, Number* p, const Number* g) {
    for (int k = 0; k < kActive; ++k) coded_[k].move_to(t_, k, begin);
    if (n % kPair == 0) {
      run_vectors(n, p, g);
      for (int k = 0; k < kActive; ++k) states_[k].measure(n, run_, most_[k]);
      for (int k = 0; k < kActive; ++k) states_[k].close(begin, n, kOrderOf<Number>);
    } else {
      step_last(n, p, g);
      for (int k = 0; k < kActive; ++k) states_[k].measure(n);
      for (int k = 0; k < kActive; ++k) states_[k].close(begin, n);
    }
  }

  // The last tile: with zeros after its end, which are not measured. Leaves the states in rising order.
  template <class Number>
  void step_last(int n, Number* p, const Number* g) {
    alignas(64) Number padded[2][kTile] = {};
    alignas(64) uint8_t codes[kActive][kTile * kBits / 8] = {};
    std::copy(p, p + n, padded[0]);
    std::copy(g, g + n, padded[1]);
    for (int k = 0; k < kActive; ++k) {
      std::copy(coded_[k].codes, coded_[k].codes + (n * kBits + 7) / 8, codes[k]);
      coded_[k].codes = codes[k];
    }
    const int whole = n + kPair - n % kPair;
    run_vectors(whole, padded[0], padded[1]);
    std::copy(padded[0], padded[0] + n, p);
    if constexpr (kOrderOf<Number> == Order::kAlternating) {
      for (int k = 0; k < kActive; ++k) put_in_order(whole, values_[k]);
    }
  }

  template <class Number>
  void run_vectors(int n, Number* p, const Number* g) {
    const Frame<float>& frame = prepared_.frame;
    if (frame.grad_factor != 1.0f || frame.decay_after != 1.0f) {
      step_vectors<Rule, kActive, Constants, AnyMaps>(frame, prepared_.scalars, n, run_, p, g, coded_, values_, most_);
    } else if (kActive == 1 || kBits == 4 || !second_moments_) {
      step_vectors<Rule, kActive, Constants, PlainFrame>(frame, prepared_.scalars, n, run_, p, g, coded_, values_, most_);
    } else if constexpr (kActive > 1 && kBits == 8) {
      step_vectors<Rule, kActive, Constants, PlainFrameSecondMoments>(frame, prepared_.scalars, n, run_, p, g, coded_, values_,
                                                                      most_);
    }
  }

  const TensorArgs& t_;
  const CommonArgs& common_;
  const Prepared<Rule, float>& prepared_;
  const uint32_t step_;
  alignas(64) float buffers_[3][kTile];
  alignas(64) float values_[kActive][kTile];
  alignas(64) uint32_t random_[kTile];
  alignas(64) Ints most_[kActive][kTileBlocks];
  const ParamStream<float> param_;
  const TileStream<float> grad_;
  StateStream<float> states_[kActive];
  Codes<Constants> coded_[kActive];
  int run_ = kLargestBlock;
  bool second_moments_ = true;  // all states but the first are in unsigned maps
  bool halves_;
};

}  // namespace momentum::cpu::MOMENTUM_ISA
