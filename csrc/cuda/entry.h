// What a kernel knows of one tensor of its list.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/call.h"
#include "core/prepare.h"

namespace momentum::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kChunk = 8192;        // elements a block takes at a time
inline constexpr int kReduceRange = 8192;  // elements per partial total
inline constexpr int kWarpSegment = 2048;  // segments up to this length are reduced by one warp each
inline constexpr int kColumnRows = 128;    // rows per partial total of a column
inline constexpr int kWarps = kThreads / 32;

// Stream numbers within Entry::dtypes (4 bits each) and Entry::aligned (1 bit each).
inline constexpr int kParamStream = 0, kGradStream = 1, kResidualStream = 2, kEmaStream = 3, kFirstState = 4;

template <int kTag>
struct Nothing {};

struct ScalarsPart {
  float* scalars;
};

struct SegmentPart {
  int64_t rows, cols;
  int64_t segment_begin;  // this tensor's first segment among those of the call
};

// Streams and facts that most steps do without.
struct ExtraPart {
  void* residual;
  void* ema;
  uint64_t seed;
  int64_t shard_offset, shard_inner, shard_stride;
};

// Scales of quantised states.
template <int kStored>
struct ScalesPart {
  void* scales[kStored > 0 ? kStored : 1];
  int64_t matrix_rows, matrix_cols;
  int64_t maxima_begin;  // of this tensor's states with the scales of a matrix, one state after the other
};

// Where a reduction leaves this tensor's partial totals.
struct ReducePart {
  void* residual;
  int64_t rows, cols;
  int64_t total_begin;    // first total of this tensor
  int64_t partial_begin;  // first partial total
  int64_t ticket_begin;   // first arrival counter; that of the tensor follows those of its segments
};

// For rules whose reduction makes several sums per segment.
struct ProductsPart {
  int64_t segment_begin;  // as in SegmentPart
  int64_t sums_begin;     // first of the sums of this tensor's segments
  int64_t chunks;         // blocks' worth of work
};

template <int kStored>
struct EntryBase {
  void* param;
  const void* grad;
  void* states[kStored > 0 ? kStored : 1];
  int64_t numel;
  double lr, weight_decay;  // while in a resident table: the number of their pair in the launch's parameters, and 0
  uint32_t index;           // in the call's lists
  uint32_t first_chunk;     // of this launch
  uint32_t dtypes;
  uint16_t aligned;
  uint8_t shift;  // groups start at elements -shift, V - shift, ...
  bool wide;      // every stream has two bytes per element: groups of eight
};

// The kernels of a map: without optional states and ExtraPart, with them, and with quantised states besides.
enum class MapKind { kPlain, kFull, kBlocks };

template <class Rule, MapKind kKind>
inline constexpr int kMapStates = kKind == MapKind::kPlain ? required_state_count<Rule>() : state_count<Rule>();

template <class Rule, MapKind kKind>
struct MapEntry : EntryBase<kMapStates<Rule, kKind>>,
                  std::conditional_t<(scalar_count<Rule>() > 0), ScalarsPart, Nothing<0>>,
                  std::conditional_t<uses_segments<Rule>(), SegmentPart, Nothing<1>>,
                  std::conditional_t<kKind != MapKind::kPlain, ExtraPart, Nothing<2>>,
                  std::conditional_t<kKind == MapKind::kBlocks, ScalesPart<kMapStates<Rule, kKind>>, Nothing<3>> {
  static constexpr int kStored = kMapStates<Rule, kKind>;
};

template <class Rule>
struct ReduceEntry : EntryBase<state_count<Rule>()>,
                     std::conditional_t<(scalar_count<Rule>() > 0), ScalarsPart, Nothing<0>>,
                     std::conditional_t<(state_count<Rule>() > 0), ScalesPart<state_count<Rule>()>, Nothing<3>>,
                     std::conditional_t<(product_count<Rule>() > 0), ProductsPart, Nothing<4>>,
                     ReducePart {
  static constexpr int kStored = state_count<Rule>();
};

__device__ __forceinline__ DType stream_dtype(uint32_t dtypes, int stream) { return DType((dtypes >> (4 * stream)) & 15u); }
__device__ __forceinline__ bool stream_aligned(uint32_t aligned, int stream) { return ((aligned >> stream) & 1u) != 0; }

template <class Rule, class EntryType>
__device__ __forceinline__ TensorFacts facts_of(const EntryType& e) {
  TensorFacts facts{};
  facts.index = e.index;
  facts.lr = e.lr;
  facts.weight_decay = e.weight_decay;
  facts.numel = e.numel;
  if constexpr (requires { e.rows; }) {
    facts.rows = e.rows;
    facts.cols = e.cols;
  }
  facts.present = (1u << required_state_count<Rule>()) - 1u;
#pragma unroll
  for (int k = required_state_count<Rule>(); k < EntryType::kStored; ++k)
    facts.present |= e.states[k] != nullptr ? 1u << k : 0u;
  if constexpr (requires { e.scalars; }) facts.scalars = e.scalars;
  return facts;
}

}  // namespace momentum::cuda
