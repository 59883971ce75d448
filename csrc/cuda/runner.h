// The tensors of one call: which tables describe them to the kernels. What is launched with these is in run_map.h,
// run_reductions.h and run_selections.h.
#pragma once

#include <vector>

#include "core/reductions.h"
#include "cuda/driver.h"
#include "cuda/launch_tables.h"
#include "cuda/map.h"
#include "cuda/reduce.h"
#include "cuda/streams.h"

namespace momentum::cuda {

// The tensors of a call whose arithmetic type is T, in tables of at most Params::kCapacity.
template <class Rule, class T>
class Runner {
 public:
  Runner(const TensorArgsVector& tensors, const CommonArgs& common, const Context& context)
      : tensors_(tensors), common_(common), context_(context) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      if ((tensors[i].param_dtype == DType::kFloat64) == (sizeof(T) == 8)) mine_.push_back(uint32_t(i));
    }
  }

  cudaError_t map(const TotalsLayout& layout);
  cudaError_t reduce(int k, const TotalsLayout& layout, int64_t totals_begin, bool finalize);
  cudaError_t finalize(int k, const TotalsLayout& layout, int64_t totals_begin);
  // The sums of the segments' sums, or what is read of them where they are complete.
  cudaError_t finish_products(bool settles, const TotalsLayout& layout);

  // Pass k of a selection, and its digit where `chooses`; or the digit alone, of counts that were completed elsewhere.
  cudaError_t select(int k, const TotalsLayout& layout, int64_t totals_begin, bool chooses);
  cudaError_t choose(int k, const TotalsLayout& layout, int64_t totals_begin);

 private:
  using ReduceParams = Params<Rule, T, ReduceEntry<Rule>>;

  void start(Header<Rule, T>& header, const TotalsLayout& layout) const {
    header.common = common_;
    header.layout = layout;
    if (!common_.device_hypers) header.constants = make_constants<Rule, T>(common_);
    header.axis = reduce_axis<Rule>(0, common_.hypers);
    for (int k = 0; k < state_count<Rule>(); ++k) {
      if (common_.state_formats[k].map != formats::CodeMap::kNone) {
        header.codecs[k] = make_codec(common_.state_formats[k]);
      }
    }
  }

  template <class Entry>
  void fill(uint32_t index, bool anchored, Entry& e) const {
    const TensorArgs& t = tensors_[index];
    constexpr bool kResidual = requires { e.residual; };
    constexpr bool kExtra = requires { e.ema; };
    e.param = t.param;
    e.grad = t.grad;
    for (int k = 0; k < Entry::kStored; ++k) e.states[k] = t.states[k];
    e.numel = t.numel;
    e.lr = t.lr;
    e.weight_decay = t.weight_decay;
    e.index = index;
    StreamInfo streams[4 + kMaxStates];
    const int count = list_streams(t, common_, Entry::kStored, kResidual, kExtra, streams);
    constexpr bool reduction = requires { e.partial_begin; };
    constexpr bool blocks = !reduction && requires { e.scales; };  // in groups of four
    describe_streams(streams, count, anchored, sizeof(T) == 8 ? 2 : 4, sizeof(T) == 4 && !reduction && !blocks, e);
    if constexpr (requires { e.scalars; }) e.scalars = t.scalars;
    if constexpr (requires { e.scales; }) {
      for (int k = 0; k < Entry::kStored; ++k) e.scales[k] = t.scales[k];
      e.matrix_rows = t.rows;
      e.matrix_cols = t.cols;
    }
    if constexpr (requires { e.rows; }) {
      e.rows = t.rows;
      e.cols = t.cols;
    }
    if constexpr (kResidual) e.residual = t.residual;
    if constexpr (kExtra) {
      e.ema = t.ema;
      e.seed = t.seed;
      e.shard_offset = t.shard_offset;
      e.shard_inner = t.shard_inner;
      e.shard_stride = t.shard_stride;
    }
  }

  MapKind map_kind() const {
    bool full = common_.rounding == Rounding::kStochastic;
    for (const uint32_t i : mine_) {
      const TensorArgs& t = tensors_[i];
      full = full || t.residual != nullptr || t.ema != nullptr;
      for (int k = 0; k < state_count<Rule>(); ++k) {
        if (t.states[k] == nullptr) continue;
        if (t.state_dtypes[k] == DType::kCodes) return MapKind::kBlocks;
        full = full || k >= required_state_count<Rule>();
      }
    }
    return full ? MapKind::kFull : MapKind::kPlain;
  }

  // The first segment of each tensor of the call, and how many there are.
  std::vector<int64_t> first_segments() const {
    const Axis along = reduce_axis<Rule>(0, common_.hypers);
    std::vector<int64_t> first(1, 0);
    for (const TensorArgs& t : tensors_) first.push_back(first.back() + segment_count(t, along));
    return first;
  }

  // Where the sums are that are made of a tensor's products: after those of all segments, or the products themselves.
  void fill_products(uint32_t index, const std::vector<int64_t>& segments, ReduceEntry<Rule>& e) const {
    e.segment_begin = segments[index];
    e.total_begin = segments[index] * product_count<Rule>();
    e.sums_begin = e.total_begin;
    if (sum_count<Rule>() > 0) e.sums_begin = segments.back() * product_count<Rule>() + index * int64_t(sum_count<Rule>());
  }

  // Scales of rows and columns that the map of a tensor finds anew.
  int64_t maxima_of(const TensorArgs& t) const {
    int64_t count = 0;
    for (int k = 0; k < state_count<Rule>(); ++k) {
      const StateFormat& format = common_.state_formats[k];
      if (t.states[k] == nullptr || t.state_dtypes[k] != DType::kCodes) continue;
      if (has_matrix_scales(format, t.rows, t.cols)) count += matrix_scales(format, t.rows, t.cols).count();
    }
    return count;
  }

  // Zeroed memory for them, and a ticket for each tensor of the call.
  cudaError_t reserve_maxima(int64_t count, Header<Rule, T>& header) const {
    const size_t floats = (size_t(count) * sizeof(float) + 7) / 8 * 8;
    const size_t bytes = floats + tensors_.size() * sizeof(uint32_t);
    auto* scratch = static_cast<char*>(context_.allocate(bytes, context_.owner));
    header.maxima = reinterpret_cast<float*>(scratch);
    header.tickets = reinterpret_cast<uint32_t*>(scratch + floats);
    return cudaMemsetAsync(scratch, 0, bytes, context_.stream);
  }

  template <MapKind kKind>
  cudaError_t map_tables(const TotalsLayout& layout);

  // Zeroed counters.
  cudaError_t reserve_tickets(size_t count, Header<Rule, T>& header) const {
    const size_t bytes = count * sizeof(uint32_t);
    header.tickets = static_cast<uint32_t*>(context_.allocate(bytes, context_.owner));
    return cudaMemsetAsync(header.tickets, 0, bytes, context_.stream);
  }

  const TensorArgsVector& tensors_;
  const CommonArgs& common_;
  const Context& context_;
  std::vector<uint32_t> mine_;
};

}  // namespace momentum::cuda
