// Streams of one tile on their way between storage and arithmetic type.
//
// Part of the per-instruction-set code: everything lives in a namespace of its own, so that the linker cannot merge functions
// built for different processors.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "core/dtype.h"
#include "cpu/blocks.h"

#ifndef MOMENTUM_ISA
#error "compiled once per instruction set, with MOMENTUM_ISA defined"
#endif

namespace momentum::cpu::MOMENTUM_ISA {

// Elements decoded at a time: the buffers of all streams stay in the first-level cache.
inline constexpr int kTile = 512;
inline constexpr int kTileBlocks = kTile / kSmallestBlock;

template <class T>
constexpr DType native_dtype() {
  return sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
}

template <class Storage>
static inline const Storage* at(const void* base, int64_t i) {
  return static_cast<const Storage*>(base) + i;
}

// Defined in stream.isa.cpp for float and double: called once per tile, compiled once per instruction set.
template <class T>
void decode(DType dtype, const void* base, int64_t begin, int n, T* out);
template <class T>
void encode(DType dtype, void* base, int64_t begin, int n, const T* values);
template <class T>
void encode_stochastic(DType dtype, void* base, int64_t begin, int n, const T* values, const uint32_t* random);

// Random words for local elements begin .. begin + n of a tensor.
void fill_random(const TensorArgs& tensor, uint64_t seed, uint32_t step, int64_t begin, int n, uint32_t* out);

// A stream that the arithmetic can use in place, or a buffer that stands for one tile of it.
template <class T>
struct TileStream {
  void* base = nullptr;
  DType dtype = DType::kFloat32;
  bool direct = false;
  T* buffer = nullptr;

  T* open(int64_t begin, int n, bool read) const {
    if (direct) return static_cast<T*>(base) + begin;
    if (read) decode<T>(dtype, base, begin, n, buffer);
    return buffer;
  }
  void close(int64_t begin, int n) const {
    if (!direct) encode<T>(dtype, base, begin, n, buffer);
  }
};

// Elements [begin, begin + n) of quantised state k; see decode_blocks for what `begin` may be.
static inline void decode_state(const TensorArgs& t, const StateFormat& format, int k, int64_t begin, int n, float* out) {
  if (has_matrix_scales(format, t.rows, t.cols)) {
    const auto* scales = static_cast<const float*>(t.scales[k]);
    return decode_matrix(format, matrix_scales(format, t.rows, t.cols), t.states[k], scales, begin, n, out);
  }
  decode_blocks(format, t.states[k], t.scales[k], begin, n, out);
}

// State k: a plain stream, or quantised blocks. A tile begins at a border of blocks.
template <class T>
class StateStream {
 public:
  StateStream() = default;
  // `buffer` holds one tile, `random` its random words. `new_scales`: see Task.
  StateStream(const TensorArgs& tensor, const CommonArgs& common, int k, uint32_t step, T* buffer, uint32_t* random,
              const float* new_scales)
      : plain_{tensor.states[k], tensor.state_dtypes[k], tensor.state_dtypes[k] == native_dtype<T>(), buffer},
        tensor_(&tensor),
        format_(tensor.state_dtypes[k] == DType::kCodes ? &common.state_formats[k] : nullptr),
        random_(random),
        new_scales_(new_scales),
        step_(step),
        k_(k) {}

  bool direct() const { return plain_.direct; }

  T* open(int64_t begin, int n, bool read) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (format_ != nullptr) {
        if (read) decode_state(*tensor_, *format_, k_, begin, n, plain_.buffer);
        return plain_.buffer;
      }
    }
    return plain_.open(begin, n, read);
  }

  // Before `close`, for all states.
  void measure(int n) {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (format_ != nullptr && !has_matrix_scales(*format_, tensor_->rows, tensor_->cols)) {
        find_block_scales(*format_, n, plain_.buffer, scales_);
      }
    }
  }

  // The same of a state in blocks that has been measured in runs.
  void measure(int n, int run, const Ints* most) { find_block_scales(*format_, n, run, 1.0f, most, scales_); }

  // `order`: of the values in the buffer, kRising but for states in blocks.
  void close(int64_t begin, int n, Order order = Order::kRising) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (format_ != nullptr) return close_blocks(begin, n, order);
    }
    plain_.close(begin, n);
  }

 private:
  void close_blocks(int64_t begin, int n, Order order) const {
    if (format_->stochastic) fill_random(*tensor_, state_seed(tensor_->seed, k_), step_, begin, n, random_);
    if (has_matrix_scales(*format_, tensor_->rows, tensor_->cols)) {
      return encode_matrix(*format_, matrix_scales(*format_, tensor_->rows, tensor_->cols), plain_.base, new_scales_, begin, n,
                           plain_.buffer, format_->stochastic ? random_ : nullptr);
    }
    encode_blocks(*format_, plain_.base, tensor_->scales[k_], begin, n, plain_.buffer, order, scales_,
                  format_->stochastic ? random_ : nullptr);
  }

  TileStream<T> plain_;
  const TensorArgs* tensor_ = nullptr;
  const StateFormat* format_ = nullptr;
  uint32_t* random_ = nullptr;
  const float* new_scales_ = nullptr;
  uint32_t step_ = 0;
  int k_ = 0;
  formats::BlockScale scales_[kTileBlocks];
};

template <class T>
static inline TileStream<T> make_stream(const void* base, DType dtype, T* buffer) {
  return {const_cast<void*>(base), dtype, base != nullptr && dtype == native_dtype<T>(), buffer};
}

// The totals of the rows or columns that elements [begin, begin + n) belong to.
template <class T>
void spread_totals(Axis axis, int64_t cols, const double* segment_totals, int64_t begin, int n, T* out);

// The parameter as the arithmetic sees it: plain storage, a master copy beside it, or a Kahan pair of storage values.
template <class T>
class ParamStream {
 public:
  // `buffer` and `pair` hold one tile, `random` its random words.
  ParamStream(const TensorArgs& tensor, const CommonArgs& common, uint32_t step, T* buffer, T* pair, uint32_t* random);

  T* open(int64_t begin, int n) const;
  void close(int64_t begin, int n, const T* values) const;

  // Stored in `dtype` alone and rounded to nearest.
  bool is_plain(DType dtype) const { return t_.param_dtype == dtype && !master_ && !kahan_ && !low_bits_ && !stochastic_; }

  bool direct;  // the arithmetic works on the storage itself

 private:
  const TensorArgs& t_;
  uint32_t step_;
  T* buffer_;
  T* pair_;
  uint32_t* random_;
  bool master_, kahan_, low_bits_, stochastic_;
};

}  // namespace momentum::cpu::MOMENTUM_ISA
