#include "cpu/stream.h"

#include "core/formats/formats.h"
#include "cpu/random.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <class T>
void decode(DType dtype, const void* base, int64_t begin, int n, T* __restrict out) {
  formats::with_format(dtype, [&](auto format) {
    using Format = decltype(format);
    const auto* __restrict stored = at<typename Format::Storage>(base, begin);
    for (int i = 0; i < n; ++i) out[i] = Format::template load<T>(stored[i]);
  });
}

template <class T>
void encode(DType dtype, void* base, int64_t begin, int n, const T* __restrict values) {
  formats::with_format(dtype, [&](auto format) {
    using Format = decltype(format);
    auto* __restrict stored = static_cast<typename Format::Storage*>(base) + begin;
    for (int i = 0; i < n; ++i) stored[i] = Format::template store<T>(values[i]);
  });
}

template <class T>
void encode_stochastic(DType dtype, void* base, int64_t begin, int n, const T* __restrict values,
                       const uint32_t* __restrict random) {
  uint16_t* __restrict stored = static_cast<uint16_t*>(base) + begin;
  if (dtype == DType::kBFloat16) {
    for (int i = 0; i < n; ++i) stored[i] = formats::BFloat16::store_stochastic(values[i], random[i]);
  } else {
    for (int i = 0; i < n; ++i) stored[i] = formats::Float16::store_stochastic(values[i], random[i]);
  }
}

void fill_random(const TensorArgs& t, uint64_t seed, uint32_t step, int64_t begin, int n, uint32_t* out) {
  if (t.shard_inner == 0) return fill_words(seed, step, uint64_t(t.shard_offset + begin), n, out);
  int64_t row = begin / t.shard_inner, col = begin - row * t.shard_inner;
  for (int i = 0; i < n;) {
    const int run = int(t.shard_inner - col < n - i ? t.shard_inner - col : n - i);
    fill_words(seed, step, uint64_t(t.shard_offset + row * t.shard_stride + col), run, out + i);
    i += run;
    col = 0;
    ++row;
  }
}

template <class T>
void spread_totals(Axis axis, int64_t cols, const double* segment_totals, int64_t begin, int n, T* out) {
  int64_t row = begin / cols, col = begin - row * cols;
  for (int i = 0; i < n;) {
    const int run = int(cols - col < n - i ? cols - col : n - i);
    if (axis == Axis::kRow) {
      for (int j = 0; j < run; ++j) out[i + j] = T(segment_totals[row]);
    } else {
      for (int j = 0; j < run; ++j) out[i + j] = T(segment_totals[col + j]);
    }
    i += run;
    col = 0;
    ++row;
  }
}

namespace {

template <class T>
void join_tile(const uint16_t* __restrict high, const int8_t* __restrict low, int n, T* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = T(formats::BFloat16::join(high[i], low[i]));
}

template <class T>
void split_tile(const T* __restrict values, int n, uint16_t* __restrict high, int8_t* __restrict low) {
  for (int i = 0; i < n; ++i) {
    const float x = float(values[i]);
    const auto both = formats::BFloat16::split(x, formats::BFloat16::nearest_addend(x));
    high[i] = both.high;
    low[i] = both.low;
  }
}

template <class T>
void split_tile_stochastic(const T* __restrict values, const uint32_t* __restrict random, int n, uint16_t* __restrict high,
                           int8_t* __restrict low) {
  for (int i = 0; i < n; ++i) {
    const auto both = formats::BFloat16::split(float(values[i]), formats::BFloat16::stochastic_addend(random[i]));
    high[i] = both.high;
    low[i] = both.low;
  }
}

}  // namespace

template <class T>
ParamStream<T>::ParamStream(const TensorArgs& tensor, const CommonArgs& common, uint32_t step, T* buffer, T* pair,
                            uint32_t* random)
    : t_(tensor), step_(step), buffer_(buffer), pair_(pair), random_(random) {
  master_ = common.residual == ResidualKind::kMaster && t_.residual != nullptr;
  kahan_ = common.residual == ResidualKind::kKahan && t_.residual != nullptr;
  low_bits_ = common.residual == ResidualKind::kLowBits && t_.residual != nullptr;
  stochastic_ = common.rounding == Rounding::kStochastic && item_size(t_.param_dtype) == 2 && !kahan_;
  direct = !master_ && !kahan_ && !low_bits_ && t_.param_dtype == native_dtype<T>();
}

template <class T>
T* ParamStream<T>::open(int64_t begin, int n) const {
  if (master_) {
    if (t_.residual_dtype == native_dtype<T>()) return static_cast<T*>(t_.residual) + begin;
    decode<T>(t_.residual_dtype, t_.residual, begin, n, buffer_);
    return buffer_;
  }
  if (direct) return static_cast<T*>(t_.param) + begin;
  if (low_bits_) {
    join_tile(at<uint16_t>(t_.param, begin), at<int8_t>(t_.residual, begin), n, buffer_);
    return buffer_;
  }
  decode<T>(t_.param_dtype, t_.param, begin, n, buffer_);
  if (kahan_) {
    decode<T>(t_.residual_dtype, t_.residual, begin, n, pair_);
    for (int i = 0; i < n; ++i) buffer_[i] += pair_[i];
  }
  return buffer_;
}

template <class T>
void ParamStream<T>::close(int64_t begin, int n, const T* values) const {
  if (direct) return;
  if (low_bits_) {
    if (stochastic_) fill_random(t_, t_.seed, step_, begin, n, random_);
    auto* high = static_cast<uint16_t*>(t_.param) + begin;
    auto* low = static_cast<int8_t*>(t_.residual) + begin;
    return stochastic_ ? split_tile_stochastic(values, random_, n, high, low) : split_tile(values, n, high, low);
  }
  if (master_ && t_.residual_dtype != native_dtype<T>()) encode<T>(t_.residual_dtype, t_.residual, begin, n, values);
  if (stochastic_) {
    fill_random(t_, t_.seed, step_, begin, n, random_);
    encode_stochastic<T>(t_.param_dtype, t_.param, begin, n, values, random_);
  } else {
    encode<T>(t_.param_dtype, t_.param, begin, n, values);
  }
  if (kahan_) {
    decode<T>(t_.param_dtype, t_.param, begin, n, pair_);
    for (int i = 0; i < n; ++i) pair_[i] = values[i] - pair_[i];
    encode<T>(t_.residual_dtype, t_.residual, begin, n, pair_);
  }
}

template void decode(DType, const void*, int64_t, int, float*);
template void decode(DType, const void*, int64_t, int, double*);
template void encode(DType, void*, int64_t, int, const float*);
template void encode(DType, void*, int64_t, int, const double*);
template void encode_stochastic(DType, void*, int64_t, int, const float*, const uint32_t*);
template void encode_stochastic(DType, void*, int64_t, int, const double*, const uint32_t*);
template void spread_totals(Axis, int64_t, const double*, int64_t, int, float*);
template void spread_totals(Axis, int64_t, const double*, int64_t, int, double*);
template class ParamStream<float>;
template class ParamStream<double>;

}  // namespace momentum::cpu::MOMENTUM_ISA
