// Two loops over a tile, with the moments in first-level cache between them:
//   average   decodes m and v, takes the gradient in and finds the largest magnitude of each run
//   finish    encodes m and v and steps the parameter, whose root and quotient, long to come and on a unit of their own, run
//             beside the encoding, which has many short instructions
// In one loop, encoding apart, the processor waits for the root and the quotient of each vector with too few other instructions
// in sight.
//
// A moment is kept in units of its gain until it is encoded, m / gain = decay / gain * m + g: the factor in front of the
// decoded number is part of its scale, and the gain of the other factor, so both cost no product. In the step the gains and the
// step size are factors of the divisor. This holds for gradients up to 1e19, whose squares are finite numbers.
#include "cpu/moments.h"

#include <algorithm>

#include "cpu/byte_tables.h"
#include "cpu/map_codes.h"

#if defined(__AVX512F__)

namespace momentum::cpu::MOMENTUM_ISA {
namespace {

constexpr float kInfinity = __builtin_huge_valf();

// The usual maps of the first and the second moment, by their width.
template <int kBits>
inline constexpr CodeMap kFirstMap = kBits == 8 ? CodeMap::kDynamic8 : CodeMap::kDynamic4;
template <int kBits>
inline constexpr CodeMap kSecondMap = kBits == 8 ? CodeMap::kUnsignedDynamic8 : CodeMap::kLinear4;

// A step by moments in units of their gains, with what the frame does to parameter and gradient.
struct Step {
  float ratio[2], gain[2];   // decay / gain; negative gains are those of negative gradients
  float grad_factor = 1.0f;  // where the gradient is clipped; otherwise it is in the gains
  float limit, clip_factor;
  float keep;       // of the parameter
  float root, eps;  // subtracted from it is m / (root sqrt(v) + eps)
  bool clips, apply;
};

// Neither zero, infinite nor NaN, and so far from it that products with such numbers are not either.
bool is_usual(float x) { return math::abs(x) >= 0x1p-60f && math::abs(x) <= 0x1p60f; }

Step make_step(const Frame<float>& frame, const Moments<float>& moments) {
  Step step{};
  step.clips = moments.limit < kInfinity;
  step.limit = moments.limit;
  step.clip_factor = moments.clip_factor;
  const float factor = step.clips ? 1.0f : frame.grad_factor;
  if (step.clips) step.grad_factor = frame.grad_factor;
  step.gain[0] = moments.gain[0] * factor;
  step.gain[1] = moments.gain[1] * factor * factor;
  for (int k = 0; k < 2; ++k) step.ratio[k] = moments.decay[k] / step.gain[k];
  step.keep = frame.decay_before * frame.decay_after;
  const float unit = 1.0f / (moments.step_size * frame.decay_after * step.gain[0]);
  step.root = moments.root * math::sqrt(step.gain[1]) * unit;
  step.eps = moments.eps * unit;
  step.apply = moments.apply && is_usual(step.gain[0]) && is_usual(step.gain[1]) && is_usual(step.root) &&
               (is_usual(step.eps) || step.eps == 0.0f);
  return step;
}

// Whether `task`, a step of two states, is for the map with codes of this kind.
template <class Constants>
bool has_usual_codes(const Task& task, const Frame<float>& frame) {
  constexpr int kBits = Codec<Constants>::kBits;
  const StateFormat* formats = task.common->state_formats;
  return has_codes<Constants>(task, 2, frame) && formats[0].map == kFirstMap<kBits> && formats[1].map == kSecondMap<kBits> &&
         !formats[0].stochastic && !formats[1].stochastic;
}

// The larger magnitudes, as bits. Second moments are no negative numbers, but NaN may have a sign.
template <int kState>
inline Ints larger_magnitude(Ints largest, Floats x) {
  if constexpr (kState == 0) {
    const Ints bits = as_ints(x) & 0x7fffffff;
    return bits > largest ? bits : largest;
  } else {
    const Words bits = reinterpret_cast<Words>(x), most = reinterpret_cast<Words>(largest);
    return reinterpret_cast<Ints>(bits > most ? bits : most);
  }
}

// Takes gradients into some vectors of moments, in units of their gains, from element i on.
template <bool kClips, int kVectors>
inline void take_in(const Step& step, int i, Floats* grad, Floats* m, Floats* v, float (*__restrict moments)[kTile],
                    Ints* largest) {
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    if constexpr (kClips) {
      grad[j] *= step.grad_factor;
      grad[j] = magnitude(grad[j]) > step.limit ? grad[j] * step.clip_factor : grad[j];
    }
    m[j] += grad[j];
    v[j] += grad[j] * grad[j];
    store(moments[0] + i + j * kVector, m[j]);
    store(moments[1] + i + j * kVector, v[j]);
    largest[0] = larger_magnitude<0>(largest[0], m[j]);
    largest[1] = larger_magnitude<1>(largest[1], v[j]);
  }
}

// `n` elements, a multiple of a group, in runs as `step_vectors` has them.
template <bool kClips, class Constants, class Number>
__attribute__((noinline)) void average(const Step& step, int n, int run, const Number* __restrict g,
                                       const Codes<Constants>* coded, float (*__restrict moments)[kTile],
                                       Ints (*__restrict most)[kTileBlocks]) {
  constexpr int kBits = Codec<Constants>::kBits;
  constexpr Order kOrder = kOrderOf<Number>;
  const Step s = step;
  for (int begin = 0, r = 0; begin < n; begin += run, ++r) {
    const int end = begin + run < n ? begin + run : n;
    Ints largest[2] = {};
#if defined(__AVX512VBMI__)
    if constexpr (kBits == 8) {
      const float first = coded[0].scale(begin) * s.ratio[0], second = coded[1].scale(begin) * s.ratio[1];
      for (int i = begin; i < end; i += kGroup) {
        Floats grad[kGroupVectors], m[kGroupVectors], v[kGroupVectors];
        decode_signed_group<kFirstMap<8>, kOrder>(coded[0].codes + i, m);
        decode_unsigned_group<kSecondMap<8>, kOrder>(coded[1].codes + i, v);
        load_pair(g + i, grad[0], grad[1]);
        load_pair(g + i + kPair, grad[2], grad[3]);
#pragma GCC unroll 4
        for (int j = 0; j < kGroupVectors; ++j) {
          m[j] *= first;
          v[j] *= second;
        }
        take_in<kClips, kGroupVectors>(s, i, grad, m, v, moments, largest);
      }
      most[0][r] = largest[0];
      most[1][r] = largest[1] & 0x7fffffff;
      continue;
    }
#endif
    const auto first = coded[0].decoder(begin, s.ratio[0]), second = coded[1].decoder(begin, s.ratio[1]);
    for (int i = begin; i < end; i += kPair) {
      Floats grad[2], m[2], v[2];
      load_pair(g + i, grad[0], grad[1]);
      decode_pair<kBits, kOrder, true>(first, coded[0].codes, i, m[0], m[1]);
      decode_pair<kBits, kOrder, false>(second, coded[1].codes, i, v[0], v[1]);
      take_in<kClips, 2>(s, i, grad, m, v, moments, largest);
    }
    most[0][r] = largest[0];
    most[1][r] = largest[1] & 0x7fffffff;
  }
}

// The parameters of a pair of vectors after the step.
template <class Number>
inline void step_pair(const Step& step, const Number* p, const float* m, const float* v, Floats* value) {
  load_pair(p, value[0], value[1]);
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    const Floats divisor = step.root * square_root(load<Floats>(v + j * kVector)) + step.eps;
    value[j] = step.keep * value[j] - load<Floats>(m + j * kVector) / divisor;
  }
}

// `n` parameters, a multiple of a pair.
template <class Number>
void step_params(const Step& step, int n, Number* p, const float* m, const float* v) {
  for (int i = 0; i < n; i += kPair) {
    Floats value[2];
    step_pair(step, p + i, m + i, v + i, value);
    store_pair(p + i, value[0], value[1]);
  }
}

// What brings the moments of each block of a tile, of 1 << shift elements, to the numbers that codes are made of.
struct BlockFactors {
  int shift;
  float of_block[kTileBlocks];
};

// The same of `n` parameters, a multiple of a group, and the codes of their moments.
template <int kBits, class Number>
__attribute__((noinline)) void finish(const Step& step, int n, Number* __restrict p, const float (*__restrict moments)[kTile],
                                      uint8_t* __restrict first, uint8_t* __restrict second,
                                      const BlockFactors* __restrict factors) {
  constexpr Order kOrder = kOrderOf<Number>;
  constexpr int kPairs = kGroup / kPair;
  constexpr const auto &kFirst = kConstants<kFirstMap<kBits>>, &kSecond = kConstants<kSecondMap<kBits>>;
  const Step s = step;
  const typename PackedPair<Number>::Constants constants;
  const Zero first_zero = kept(make_zero(kFirst.zero)), second_zero = kept(make_zero(kSecond.zero));
  for (int i = 0; i < n; i += kGroup) {
    const float to_first = factors[0].of_block[i >> factors[0].shift];
    const float to_second = factors[1].of_block[i >> factors[1].shift];
    Ints code[2][kGroupVectors];
    PackedPair<Number> packed[kPairs];
#pragma GCC unroll 2
    for (int pair = 0; pair < kPairs; ++pair) {
      const float *m = moments[0] + i + pair * kPair, *v = moments[1] + i + pair * kPair;
      Floats value[2];
      step_pair(s, p + i + pair * kPair, m, v, value);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        code[0][2 * pair + j] = nearest(kFirst, load<Floats>(m + j * kVector) * to_first);
        code[1][2 * pair + j] = nearest(kSecond, load<Floats>(v + j * kVector) * to_second);
      }
      packed[pair] = PackedPair<Number>(constants, value[0], value[1]);
    }
    store_codes<kBits, kOrder>(first + i * kBits / 8, code[0], first_zero);
    store_codes<kBits, kOrder>(second + i * kBits / 8, code[1], second_zero);
    bool careful = false;
    for (const auto& pair : packed) careful = careful || pair.needs_care();
    if (careful) [[unlikely]] {
      step_params(s, kGroup, p + i, moments[0] + i, moments[1] + i);
      continue;
    }
    for (int pair = 0; pair < kPairs; ++pair) packed[pair].store(p + i + pair * kPair);
  }
}

template <class Constants>
class MomentsMap {
 public:
  MomentsMap(const Task& task, uint32_t number, const Step& step)
      : t_(*task.tensor),
        step_(step),
        param_(t_, *task.common, number, buffers_[0], buffers_[1], random_),
        grad_(make_stream<float>(t_.grad, t_.grad_dtype, buffers_[2])) {
    halves_ = param_.is_plain(DType::kBFloat16) && t_.grad_dtype == DType::kBFloat16;
    for (int k = 0; k < 2; ++k) {
      formats_[k] = task.common->state_formats[k];
      coded_[k] = make_codes<Constants>(formats_[k]);
      factors_[k].shift = coded_[k].shift;
      run_ = formats_[k].block < run_ ? formats_[k].block : run_;
    }
    alike_ = formats_[0].block == formats_[1].block && formats_[0].scale_dtype == DType::kFloat32 &&
             formats_[1].scale_dtype == DType::kFloat32;
  }

  void operator()(int64_t begin, int n) {
    if (halves_) return run(begin, n, static_cast<uint16_t*>(t_.param) + begin, at<uint16_t>(t_.grad, begin));
    const float* g = grad_.open(begin, n, true);
    float* p = param_.open(begin, n);
    run(begin, n, p, g);
    param_.close(begin, n, p);
  }

 private:
  static constexpr int kBits = Codec<Constants>::kBits;
  static constexpr float kUnits[2] = {kConstants<kFirstMap<kBits>>.units, kConstants<kSecondMap<kBits>>.units};

  template <class Number>
  void run(int64_t begin, int n, Number* p, const Number* g) {
    uint8_t* codes[2];
    for (int k = 0; k < 2; ++k) {
      coded_[k].move_to(t_, k, begin);
      codes[k] = static_cast<uint8_t*>(t_.states[k]) + begin * kBits / 8;
    }
    if (n % kGroup != 0) return run_last(begin, n, p, g);
    take_in_gradients(n, g);
    if (!find_scales(begin, n)) {
      step_params(step_, n, p, moments_[0], moments_[1]);
      return encode(begin, n, kOrderOf<Number>);
    }
    finish<kBits>(step_, n, p, moments_, codes[0], codes[1], factors_);
  }

  template <class Number>
  void take_in_gradients(int n, const Number* g) {
    if (step_.clips) {
      average<true>(step_, n, run_, g, coded_, moments_, most_);
    } else {
      average<false>(step_, n, run_, g, coded_, moments_, most_);
    }
  }

  // The last tile, with zeros after its end, which are not measured.
  template <class Number>
  void run_last(int64_t begin, int n, Number* p, const Number* g) {
    alignas(64) Number padded[2][kTile] = {};
    alignas(64) uint8_t codes[2][kTile * kBits / 8] = {};
    std::copy(p, p + n, padded[0]);
    std::copy(g, g + n, padded[1]);
    for (int k = 0; k < 2; ++k) {
      std::copy(coded_[k].codes, coded_[k].codes + (n * kBits + 7) / 8, codes[k]);
      coded_[k].codes = codes[k];
    }
    const int whole = n + kGroup - n % kGroup;
    take_in_gradients(whole, padded[1]);
    step_params(step_, whole, padded[0], moments_[0], moments_[1]);
    std::copy(padded[0], padded[0] + n, p);
    if constexpr (kOrderOf<Number> == Order::kAlternating) {
      for (auto& values : moments_) put_in_order(whole, values);
    }
    encode(begin, n, Order::kRising);
  }

  // Encodes the moments as any state is.
  void encode(int64_t begin, int n, Order order) {
    for (int k = 0; k < 2; ++k) {
      for (float& value : moments_[k]) value *= step_.gain[k];
      find_block_scales(formats_[k], n, moments_[k], scales_[k]);
      encode_blocks(formats_[k], t_.states[k], t_.scales[k], begin, n, moments_[k], order, scales_[k], nullptr);
    }
  }

  // Stores the scales of the tile and says whether all of them are regular.
  bool find_scales(int64_t begin, int n) {
    if (alike_ && n == kTile) return find_scales_of_pairs(begin);
    bool regular = true;
    for (int k = 0; k < 2; ++k) {
      const StateFormat& format = formats_[k];
      find_block_scales(format, n, run_, step_.gain[k], most_[k], scales_[k]);
      for (int i = 0, j = 0; i < n; i += format.block, ++j) {
        const formats::BlockScale& scale = scales_[k][j];
        regular = regular && scale.is_regular();
        formats::store_scale(t_.scales[k], format.scale_dtype, (begin + i) >> coded_[k].shift, scale.scale);
        factors_[k].of_block[j] = scale.inverse * (step_.gain[k] * kUnits[k]);
      }
    }
    return regular;
  }

  // The same of a whole tile where every two blocks of both states have float32 scales: of all four at once, in a fraction of
  // the instructions.
  bool find_scales_of_pairs(int64_t begin) {
    const float *gain = step_.gain, first = math::abs(gain[0]), second = gain[1];
    const __m128 unit = _mm_setr_ps(first, first, second, second);
    const __m128 back = _mm_setr_ps(gain[0] * kUnits[0], gain[0] * kUnits[0], gain[1] * kUnits[1], gain[1] * kUnits[1]);
    unsigned regular = 15;
    for (int j = 0; j < kTile >> coded_[0].shift; j += 2) {
      const Ints most[4] = {most_[0][j], most_[0][j + 1], most_[1][j], most_[1][j + 1]};
      const __m128 scale = _mm_mul_ps(_mm_castsi128_ps(largest_of_four(most)), unit);
      const __m128 factor = _mm_div_ps(back, scale);
      regular &= unsigned(_mm_movemask_ps(_mm_and_ps(_mm_cmpge_ps(scale, _mm_set1_ps(formats::kLeastRegularScale)),
                                                     _mm_cmplt_ps(scale, _mm_set1_ps(kInfinity)))));
      const int64_t at = (begin >> coded_[0].shift) + j;
      _mm_storel_pi(reinterpret_cast<__m64*>(static_cast<float*>(t_.scales[0]) + at), scale);
      _mm_storeh_pi(reinterpret_cast<__m64*>(static_cast<float*>(t_.scales[1]) + at), scale);
      _mm_storel_pi(reinterpret_cast<__m64*>(factors_[0].of_block + j), factor);
      _mm_storeh_pi(reinterpret_cast<__m64*>(factors_[1].of_block + j), factor);
    }
    return regular == 15;
  }

  const TensorArgs& t_;
  const Step step_;
  StateFormat formats_[2];
  alignas(64) float buffers_[3][kTile];
  alignas(64) float moments_[2][kTile];
  alignas(64) uint32_t random_[kTile];
  alignas(64) Ints most_[2][kTileBlocks];
  BlockFactors factors_[2];
  formats::BlockScale scales_[2][kTileBlocks];
  const ParamStream<float> param_;
  const TileStream<float> grad_;
  Codes<Constants> coded_[2];
  int run_ = kLargestBlock;
  bool alike_;  // blocks of one size, scales in float32
  bool halves_;
};

template <class Constants>
void run(const Task& task, uint32_t number, const Step& step, int64_t begin, int64_t end) {
  MomentsMap<Constants> map(task, number, step);
  for (int64_t i = begin; i < end; i += kTile) map(i, int(end - i < kTile ? end - i : kTile));
}

}  // namespace

bool step_moments(const Task& task, const Frame<float>& frame, const Moments<float>& moments, uint32_t number, int64_t begin,
                  int64_t end) {
  const bool bytes = has_usual_codes<DynamicBytes>(task, frame);
  if (!bytes && !has_usual_codes<FourBits>(task, frame)) return false;
  const Step step = make_step(frame, moments);
  if (!step.apply) return false;
  if (bytes) {
    run<DynamicBytes>(task, number, step, begin, end);
  } else {
    run<FourBits>(task, number, step, begin, end);
  }
  return true;
}

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
