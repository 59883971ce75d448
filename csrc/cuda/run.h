// The host side of the kernels of one rule.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "core/reductions.h"
#include "cuda/driver.h"
#include "cuda/map.h"
#include "cuda/products.h"
#include "cuda/reduce.h"
#include "cuda/select.h"
#include "cuda/table_launch.h"

namespace momentum::cuda {

// Blocks of `kernel` that run at once on the current device; asked once per device.
template <auto kKernel>
cudaError_t resident_blocks(int* blocks) {
  static std::atomic<int> known[64] = {};
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  *blocks = device < 64 ? known[device].load(std::memory_order_relaxed) : 0;
  if (*blocks > 0) return cudaSuccess;
  int multiprocessors = 0, each = 0;
  cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kKernel, kThreads, 0);
  if (error != cudaSuccess) return error;
  *blocks = std::max(1, multiprocessors * each);
  if (device < 64) known[device].store(*blocks, std::memory_order_relaxed);
  return cudaSuccess;
}

struct StreamInfo {
  const void* data;
  DType dtype;
  int number;
  int code_bits = 0;  // of quantised states
};

// Dtypes, group width and alignment of the streams of one tensor. `anchored`: groups start at element 0.
template <class EntryBaseType>
void describe_streams(const StreamInfo* streams, int count, bool anchored, int float_width, bool may_widen, EntryBaseType& e) {
  e.dtypes = 0;
  e.aligned = 0;
  bool wide = may_widen;
  for (int s = 0; s < count; ++s) wide = wide && (streams[s].data == nullptr || item_size(streams[s].dtype) == 2);
  const auto is_codes = [&](const StreamInfo& s) { return s.dtype == DType::kCodes; };
  const int width = wide ? 8 : float_width;
  // Elements until the stream reaches a group border; -1 where no element does.
  const auto phase = [&](const StreamInfo& s) {
    const int size = item_size(s.dtype);
    const auto address = reinterpret_cast<uintptr_t>(s.data);
    if (address % size != 0) return -1;
    return int((-(address / size)) % width);
  };
  int head = 0;
  if (!anchored) {
    int votes[16] = {};
    for (int s = 0; s < count; ++s) {
      if (streams[s].data != nullptr && !is_codes(streams[s]) && phase(streams[s]) >= 0) ++votes[phase(streams[s])];
    }
    for (int h = 1; h < width; ++h) head = votes[h] > votes[head] ? h : head;
  }
  for (int s = 0; s < count; ++s) {
    if (streams[s].data == nullptr) continue;
    e.dtypes |= uint32_t(streams[s].dtype) << (4 * streams[s].number);
    if (is_codes(streams[s])) {  // in groups of four from element 0
      const auto bytes = uintptr_t(kBlockGroup * streams[s].code_bits / 8);
      if (reinterpret_cast<uintptr_t>(streams[s].data) % bytes == 0) e.aligned |= uint16_t(1u << streams[s].number);
      continue;
    }
    if (phase(streams[s]) == head) e.aligned |= uint16_t(1u << streams[s].number);
  }
  e.wide = wide;
  e.shift = uint8_t((width - head) % width);
}

template <class Rule>
int list_streams(const TensorArgs& t, const CommonArgs& common, int states, bool residual, bool ema, StreamInfo* out) {
  int count = 0;
  out[count++] = {t.param, t.param_dtype, kParamStream};
  out[count++] = {t.grad, t.grad_dtype, kGradStream};
  for (int k = 0; k < states; ++k) {
    out[count++] = {t.states[k], t.state_dtypes[k], kFirstState + k, formats::code_bits(common.state_formats[k].map)};
  }
  if (residual) out[count++] = {t.residual, t.residual_dtype, kResidualStream};
  if (ema) out[count++] = {t.ema, t.ema_dtype, kEmaStream};
  return count;
}

// The tensors of a call whose arithmetic type is T, in tables of at most Params::kCapacity.
template <class Rule, class T>
class Runner {
 public:
  Runner(const std::vector<TensorArgs>& tensors, const CommonArgs& common, const Context& context)
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
    const int count = list_streams<Rule>(t, common_, Entry::kStored, kResidual, kExtra, streams);
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

  const std::vector<TensorArgs>& tensors_;
  const CommonArgs& common_;
  const Context& context_;
  std::vector<uint32_t> mine_;
};

template <class Rule, class T>
cudaError_t Runner<Rule, T>::map(const TotalsLayout& layout) {
  // In double only one kernel exists: fewer binaries for a rare case.
  if constexpr (sizeof(T) == 4) {
    const MapKind kind = map_kind();
    if (kind == MapKind::kPlain) return map_tables<MapKind::kPlain>(layout);
    if (kind == MapKind::kBlocks) return map_tables<MapKind::kBlocks>(layout);
  }
  return map_tables<MapKind::kFull>(layout);
}

template <class Rule, class T>
template <MapKind kKind>
cudaError_t Runner<Rule, T>::map_tables(const TotalsLayout& layout) {
  if (mine_.empty()) return cudaSuccess;
  constexpr auto kKernel = map_kernel<Rule, T, kKind>;
  int resident = 0;
  if (const cudaError_t error = resident_blocks<kKernel>(&resident); error != cudaSuccess) return error;
  const std::vector<int64_t> segments = uses_segments<Rule>() ? first_segments() : std::vector<int64_t>();
  TableLaunch<Params<Rule, T, MapEntry<Rule, kKind>>> launch;
  start(launch.header(), layout);
  launch.reserve(mine_.size());
  int64_t maxima = 0;
  for (const uint32_t index : mine_) {
    auto& e = launch.add();
    if constexpr (kKind == MapKind::kBlocks) {
      e.maxima_begin = maxima;
      maxima += maxima_of(tensors_[index]);
    }
    fill(index, kKind == MapKind::kBlocks || common_.rounding == Rounding::kStochastic, e);
    if constexpr (uses_segments<Rule>()) e.segment_begin = segments[index];
    launch.add_chunks(e.numel > 0 ? (e.numel + e.shift + kChunk - 1) / kChunk : 0);
  }
  auto* arrivals = reinterpret_cast<uint32_t*>(common_.steps + tensors_.size());
  const auto run = [&] {
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      const unsigned grid = std::clamp(params.header.chunks, 1u, unsigned(resident));
      return simt::launch(kKernel, grid, kThreads, 0, context_.stream, params, arrivals);
    });
  };
  if (maxima > 0) {
    cudaError_t error = reserve_maxima(maxima, launch.header());
    launch.header().find_maxima = true;
    if (error == cudaSuccess) error = run();
    if (error != cudaSuccess) return error;
    launch.header().find_maxima = false;
  }
  return run();
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::reduce(int k, const TotalsLayout& layout, int64_t totals_begin, bool finalize) {
  if (mine_.empty()) return cudaSuccess;
  const Axis along = reduce_axis<Rule>(k, common_.hypers);

  // Pieces of one tensor: how many blocks, partial totals and arrival counters it takes.
  struct Plan {
    int64_t chunks, partials, tickets;
  };
  const bool products = product_count<Rule>() > 0 && k == 0;
  const int width = totals_width<Rule>(k);
  const auto plan_of = [&](const TensorArgs& t) -> Plan {
    if (along == Axis::kColumn) {
      const int64_t row_blocks = t.rows > kColumnRows ? (t.rows + kColumnRows - 1) / kColumnRows : 1;
      const int64_t column_blocks = (t.cols + kThreads - 1) / kThreads;
      return {row_blocks * column_blocks, row_blocks > 1 ? row_blocks * t.cols : 0, row_blocks > 1 ? column_blocks : 0};
    }
    const int64_t segments = along == Axis::kRow ? t.rows : 1, length = along == Axis::kRow ? t.cols : t.numel;
    const int64_t own = products && sum_count<Rule>() > 0 ? 1 : 0;  // counts the blocks of the tensor
    if (segments > 1 && length <= kWarpSegment) return {(segments + kWarps - 1) / kWarps, 0, own};
    const int64_t pieces = length > kReduceRange ? (length + kReduceRange - 1) / kReduceRange : 1;
    return {segments * pieces, pieces > 1 ? segments * pieces * width : 0, (pieces > 1 ? segments : 0) + own};
  };

  int64_t partials = 0, tickets = 0;
  for (const uint32_t index : mine_) {
    const Plan plan = plan_of(tensors_[index]);
    partials += plan.partials;
    tickets += plan.tickets;
  }
  TableLaunch<ReduceParams> launch;
  auto& header = launch.header();
  start(header, layout);
  header.reduction = k;
  header.axis = along;
  header.finalize = finalize;
  if (partials > 0)
    header.partials = static_cast<double*>(context_.allocate(size_t(partials) * sizeof(double), context_.owner));
  if (tickets > 0) {
    const size_t ticket_bytes = size_t(tickets) * sizeof(uint32_t);
    header.tickets = static_cast<uint32_t*>(context_.allocate(ticket_bytes, context_.owner));
    const cudaError_t error = cudaMemsetAsync(header.tickets, 0, ticket_bytes, context_.stream);
    if (error != cudaSuccess) return error;
  }

  std::vector<int64_t> totals(1, totals_begin);
  for (const TensorArgs& t : tensors_) totals.push_back(totals.back() + segment_count(t, along));
  const std::vector<int64_t> segments = product_count<Rule>() > 0 ? first_segments() : std::vector<int64_t>();
  int64_t partial = 0, ticket = 0;
  launch.reserve(mine_.size());
  for (const uint32_t index : mine_) {
    const Plan plan = plan_of(tensors_[index]);
    auto& e = launch.add();
    fill(index, true, e);
    if constexpr (product_count<Rule>() > 0) {
      fill_products(index, segments, e);
      e.chunks = plan.chunks;
    }
    if (!products) e.total_begin = totals[index];
    e.partial_begin = partial;
    e.ticket_begin = ticket;
    launch.add_chunks(plan.chunks);
    partial += plan.partials;
    ticket += plan.tickets;
  }

  const auto run = [&]<auto kKernel>() -> cudaError_t {
    int resident = 0;
    if (const cudaError_t error = resident_blocks<kKernel>(&resident); error != cudaSuccess) return error;
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      if (params.header.chunks == 0) return cudaSuccess;
      const unsigned grid = std::min(params.header.chunks, unsigned(resident));
      return simt::launch(kKernel, grid, kThreads, 0, context_.stream, params);
    });
  };
  if constexpr (product_count<Rule>() > 0) {
    if (products) return run.template operator()<products_kernel<Rule, T>>();
  } else if constexpr (uses_segments<Rule>()) {
    if (along == Axis::kColumn) return run.template operator()<reduce_columns_kernel<Rule, T>>();
  }
  // What is left for a rule with products is the count of the cautious mask.
  if constexpr (product_count<Rule>() == 0 || has_map<Rule>()) return run.template operator()<reduce_kernel<Rule, T>>();
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::finish_products(bool settles, const TotalsLayout& layout) {
  if constexpr (product_count<Rule>() > 0) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.finalize = settles;
    launch.reserve(mine_.size());
    const std::vector<int64_t> segments = first_segments();
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      fill_products(index, segments, e);
    }
    constexpr auto kKernel = finish_products_kernel<Rule, T>;
    int resident = 0;
    if (const cudaError_t error = resident_blocks<kKernel>(&resident); error != cudaSuccess) return error;
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      const unsigned grid = std::min(params.header.entries, unsigned(resident));
      return simt::launch(kKernel, grid, kThreads, 0, context_.stream, params);
    });
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::finalize(int k, const TotalsLayout& layout, int64_t totals_begin) {
  if constexpr (scalar_count<Rule>() > 0) {
    if (mine_.empty() || k >= reduction_count<Rule>()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    header.finalize = true;
    launch.reserve(mine_.size());
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      e.total_begin = totals_begin + index;
    }
    constexpr auto kKernel = finalize_kernel<Rule, T>;
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      const unsigned grid = (params.header.entries + kThreads - 1) / kThreads;
      return simt::launch(kKernel, grid, kThreads, 0, context_.stream, params);
    });
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::select(int k, const TotalsLayout& layout, int64_t totals_begin, bool chooses) {
  if constexpr (selects<Rule>()) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    header.finalize = chooses;
    const size_t ticket_bytes = mine_.size() * sizeof(uint32_t);
    header.tickets = static_cast<uint32_t*>(context_.allocate(ticket_bytes, context_.owner));
    if (const cudaError_t error = cudaMemsetAsync(header.tickets, 0, ticket_bytes, context_.stream); error != cudaSuccess) {
      return error;
    }
    launch.reserve(mine_.size());
    for (size_t place = 0; place < mine_.size(); ++place) {
      auto& e = launch.add();
      fill(mine_[place], true, e);
      e.total_begin = totals_begin + int64_t(mine_[place]) * selection_width(k);
      e.ticket_begin = int64_t(place);
      launch.add_chunks(selection_chunks(e.numel));
    }
    constexpr auto kKernel = select_kernel<Rule, T>;
    int resident = 0;
    if (const cudaError_t error = resident_blocks<kKernel>(&resident); error != cudaSuccess) return error;
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      if (params.header.chunks == 0) return cudaSuccess;
      const unsigned grid = std::min(params.header.chunks, unsigned(resident));
      return simt::launch(kKernel, grid, kThreads, 0, context_.stream, params);
    });
  }
  return cudaSuccess;
}

template <class Rule, class T>
cudaError_t Runner<Rule, T>::choose(int k, const TotalsLayout& layout, int64_t totals_begin) {
  if constexpr (selects<Rule>()) {
    if (mine_.empty()) return cudaSuccess;
    TableLaunch<ReduceParams> launch;
    auto& header = launch.header();
    start(header, layout);
    header.reduction = k;
    launch.reserve(mine_.size());
    for (const uint32_t index : mine_) {
      auto& e = launch.add();
      fill(index, true, e);
      e.total_begin = totals_begin + int64_t(index) * selection_width(k);
    }
    constexpr auto kKernel = choose_kernel<Rule, T>;
    return launch.run(reinterpret_cast<const void*>(kKernel), context_, [&](const auto& params) {
      return simt::launch(kKernel, params.header.entries, kThreads, 0, context_.stream, params);
    });
  }
  return cudaSuccess;
}

// Reduction k of a call, or as much of it as one stage is.
template <class Rule, class T>
cudaError_t run_reduction(Runner<Rule, T>& runner, int k, int stage, const TotalsLayout& layout, int64_t totals_begin) {
  const bool whole = stage == kWholeStep;
  if (selects<Rule>() && k < kSelectionPasses) {
    if (whole || stage == 2 * k) return runner.select(k, layout, totals_begin, whole);
    return stage == 2 * k + 1 ? runner.choose(k, layout, totals_begin) : cudaSuccess;
  }
  if (product_count<Rule>() > 0 && k < reduction_count<Rule>()) {
    const bool of_sums = k == 1;
    if (whole || stage == 2 * k) {
      if (!of_sums) return runner.reduce(k, layout, totals_begin, whole);
      return whole ? cudaSuccess : runner.finish_products(false, layout);  // a whole step has done it all
    }
    const bool last = k == reduction_count<Rule>() - 1;
    return stage == 2 * k + 1 && last ? runner.finish_products(true, layout) : cudaSuccess;
  }
  if (whole || stage == 2 * k) return runner.reduce(k, layout, totals_begin, whole);
  return stage == 2 * k + 1 ? runner.finalize(k, layout, totals_begin) : cudaSuccess;
}

template <class Rule>
cudaError_t run_rule(const StepCall& call, const Context& context) {
  const CommonArgs& common = call.common;
  const int reductions = reduction_count<Rule>(common.cautious);
  if constexpr (has_map<Rule>()) {
    if (common.perpendicular != nullptr) {
      const int first = 2 * reductions + 1;
      const bool mine = call.stage == kWholeStep || call.stage == first || call.stage == first + 1;
      const int stage = call.stage == kWholeStep ? kWholeStep : call.stage - first;
      const cudaError_t error = mine ? run_perpendicular(call, stage, context) : cudaSuccess;
      if (error != cudaSuccess) return error;
    }
  }
  Runner<Rule, float> single(call.tensors, common, context);
  Runner<Rule, double> twice(call.tensors, common, context);
  TotalsLayout layout;
  int64_t totals_begin = 0;
  cudaError_t error = cudaSuccess;
  for (int k = 0; k < reductions && error == cudaSuccess; ++k) {
    const Axis along = reduce_axis<Rule>(k, common.hypers);
    if (selects<Rule>() && k < kSelectionPasses && (call.stage == kWholeStep || call.stage == 2 * k)) {
      const size_t counts = call.tensors.size() * size_t(totals_width<Rule>(k));
      error = cudaMemsetAsync(common.totals + totals_begin, 0, counts * sizeof(double), context.stream);
      if (error != cudaSuccess) return error;
    }
    error = run_reduction(single, k, call.stage, layout, totals_begin);
    if (error == cudaSuccess) error = run_reduction(twice, k, call.stage, layout, totals_begin);
    layout.offset[k] = totals_begin;
    layout.per_tensor[k] = along == Axis::kTensor && totals_width<Rule>(k) == 1;
    layout.completed = k + 1;
    totals_begin += segment_total(call.tensors, along) * totals_width<Rule>(k);
  }
  if (error != cudaSuccess) return error;
  if (call.stage != kWholeStep && call.stage != 2 * reductions) return cudaSuccess;
  if constexpr (has_map<Rule>()) {
    error = single.map(layout);
    if (error == cudaSuccess) error = twice.map(layout);
  }
  return error;
}

}  // namespace momentum::cuda
