// The map over a subset of the elements: one pass, one launch.
//
// A warp takes a tile of up to 256 elements of one row; a lane two groups of four neighbours. The places of the chosen ones
// among the states follow from the tile's mask by a scan over its eight words, so the states of a tile are one range that the
// warp reads and writes once. Bytes per element: the parameter twice and the gradient, where a group has a chosen element or
// the rest is stepped; each state twice times the density; the mask. At a density of 1/4 nine of ten 32-byte sectors of the
// parameter are touched: what is saved is memory, not time. A step that draws spends some 700 instructions per tile on it.
#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "cuda/launch_tables.h"
#include "cuda/map.h"
#include "cuda/subset.h"

namespace momentum::cuda {
namespace {

constexpr int kTilesPerChunk = kChunk / kSubsetBlock;
constexpr int kGroup = 4;
constexpr int kGroups = kSubsetBlock / (32 * kGroup);
constexpr unsigned kAllLanes = 0xffffffffu;

struct SubsetPart {
  uint32_t* mask;
  int64_t rows, cols, tiles_per_row, tiles;
  SubsetLines lines;
  uint64_t seed;
};

template <class Rule>
struct SubsetEntry : EntryBase<subset_states<Rule>()>, SubsetPart {
  static constexpr int kStored = subset_states<Rule>();
};

template <class Rule>
struct SubsetHeader {
  CommonArgs common;
  typename Rule::template Constants<float> constants;
  SubsetOptions options;
  const void* resident;
  uint32_t chunks, entries;
};

template <class Rule>
struct SubsetParams {
  using Entry = SubsetEntry<Rule>;
  static constexpr int kCapacity = (kParameterBytes - int(sizeof(SubsetHeader<Rule>)) - 16) / int(sizeof(Entry));
  SubsetHeader<Rule> header;
  union {
    Entry table[kCapacity];
    ResidentPart part;
  };
};

// The choice of one tile as a warp holds it: lane l has word l % 8. The tile's words are `words` into the mask.
__device__ __forceinline__ uint32_t stored_word(const SubsetPart& e, const SubsetTile& tile, int64_t words, int lane) {
  const int word = lane % kSubsetWords, units = tile.units - word * 32;
  if (units <= 0) return 0;
  if (e.mask != nullptr) return e.mask[words + word];
  if (e.lines.shares.count == 0) return 0;
  return units >= 32 ? ~0u : (1u << units) - 1u;
}

// The words of a tile from those of its block.
__device__ __forceinline__ uint32_t part_of(uint32_t word, const SubsetTile& tile, int lane) {
  const int place = lane % kSubsetWords, source = place + tile.shift / 32, units = tile.units - place * 32;
  const uint32_t low = __shfl_sync(kAllLanes, word, source % kSubsetWords);
  const uint32_t high = __shfl_sync(kAllLanes, word, (source + 1) % kSubsetWords);
  if (units <= 0) return 0;  // so nothing that lies behind the block is used
  const auto bits = uint32_t((uint64_t(high) << 32 | low) >> (tile.shift % 32));
  return units >= 32 ? bits : bits & ((1u << units) - 1u);
}

__device__ __forceinline__ uint32_t drawn_word(const SubsetPart& e, const SubsetTile& tile, int lane, uint32_t period) {
  const SubsetShares& shares = e.lines.shares;
  uint32_t keys[kGroups][kGroup];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const int place = (j * 32 + lane) * kGroup;
    const int64_t unit = tile.block * kSubsetBlock + place;
    const PhiloxWords words = philox_group(e.seed, period, uint64_t(unit) / kGroup);
#pragma unroll
    for (int v = 0; v < kGroup; ++v) {
      keys[j][v] = unit + v < shares.units ? subset_key(words.word[v], place + v) : ~0u;
    }
  }
  const auto chosen = uint32_t(shares.before(tile.block + 1) - shares.before(tile.block));
  uint32_t limit = 0;  // the largest number with at most `chosen` keys below it
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t tried = limit | (1u << bit);
    uint32_t below = 0;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
#pragma unroll
      for (int v = 0; v < kGroup; ++v) below += keys[j][v] < tried ? 1u : 0u;
    }
    limit = __reduce_add_sync(kAllLanes, below) <= chosen ? tried : limit;
  }
  uint32_t words[kGroups];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    uint32_t bits = 0;
#pragma unroll
    for (int v = 0; v < kGroup; ++v) bits |= uint32_t(keys[j][v] < limit) << v;
    bits <<= lane % 8 * kGroup;
#pragma unroll
    for (int offset = 1; offset < 8; offset <<= 1) bits |= __shfl_xor_sync(kAllLanes, bits, offset);
    words[j] = bits;  // of lanes 8 q .. 8 q + 7: word 4 j + q
  }
  const int word = lane % kSubsetWords;
  const uint32_t low = __shfl_sync(kAllLanes, words[0], word % 4 * 8);
  const uint32_t high = __shfl_sync(kAllLanes, words[1], word % 4 * 8);
  return part_of(word < 4 ? low : high, tile, lane);
}

// How many are chosen in the words before the lane's own.
__device__ __forceinline__ uint32_t chosen_before(uint32_t word, int lane) {
  const auto own = uint32_t(__popc(word));
  uint32_t sum = own;
#pragma unroll
  for (int offset = 1; offset < kSubsetWords; offset <<= 1) {
    const uint32_t other = __shfl_up_sync(kAllLanes, sum, offset, kSubsetWords);
    sum += lane % kSubsetWords >= offset ? other : 0u;
  }
  return sum - own;
}

// The chosen elements of a lane's group: a bit for each, and the place of the first among the chosen of the block.
struct GroupChoice {
  uint32_t bits, place;
};

__device__ __forceinline__ GroupChoice group_choice(uint32_t word, uint32_t before, int group, int lane) {
  const int source = group * 4 + lane / 8, shift = lane % 8 * kGroup;
  const uint32_t mine = __shfl_sync(kAllLanes, word, source), first = __shfl_sync(kAllLanes, before, source);
  return {(mine >> shift) & 15u, first + uint32_t(__popc(mine & ((1u << shift) - 1u)))};
}

template <class Rule>
__device__ __forceinline__ void step_tile(const SubsetOptions& options, const SubsetEntry<Rule>& e,
                                          const Prepared<Rule, float>& prepared, const SubsetMoment& moment, int64_t tile) {
  constexpr int kStates = SubsetEntry<Rule>::kStored;
  const int lane = int(threadIdx.x % 32);
  const bool by_row = options.axis == Axis::kRow;
  const bool draws = moment.draws && e.mask != nullptr;
  const int64_t row = tile / e.tiles_per_row, piece = tile % e.tiles_per_row;
  const SubsetLine line = e.lines.line(row);
  const int64_t index = by_row ? line.tile_of(row) : piece;
  const SubsetTile units = line.tile(e.lines.shares, index);
  if (units.units <= 0) return;  // of a line with fewer tiles than others
  const int64_t words = (index + (e.lines.stride == 0 ? 0 : row * e.tiles_per_row)) * kSubsetWords;
  const uint32_t word = draws ? drawn_word(e, units, lane, moment.period) : stored_word(e, units, words, lane);
  const uint32_t before = chosen_before(word, lane);
  const auto store_choice = [&] {
    if (draws && lane < kSubsetWords && lane * 32 < units.units) e.mask[words + lane] = word;
  };
  if (e.rows == 0) {
    store_choice();
    return;
  }
  const bool moves = draws && !moment.clears;  // elements chosen again keep their states
  uint32_t old_word = 0, old_before = 0;
  if (moves) {
    old_word = stored_word(e, units, words, lane);
    old_before = chosen_before(old_word, lane);
  }
  const int64_t col = by_row ? piece * kSubsetBlock : units.first;
  int64_t slot = row * e.lines.room + units.slot;
  bool whole_row = false;
  if (by_row) {
    const int place = int(row - units.first), bit = place % 32;
    const uint32_t mine = __shfl_sync(kAllLanes, word, place / 32), first = __shfl_sync(kAllLanes, before, place / 32);
    whole_row = ((mine >> bit) & 1u) != 0;
    slot = (units.slot + first + __popc(mine & ((1u << bit) - 1u))) * e.cols + col;
  }
  const int64_t tile_end = by_row ? (row + 1) * e.cols : row * e.cols + col + units.units;
  const auto dtype = [&](int stream) { return stream_dtype(e.dtypes, stream); };
  const auto aligned = [&](int stream) { return stream_aligned(e.aligned, stream); };

  GroupChoice choice[kGroups];
  Raw param[kGroups], grad[kGroups];
  float x[kGroups][kGroup][kMaxStates];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const int place = (j * 32 + lane) * kGroup;
    const int64_t i = row * e.cols + col + place;
    choice[j] = group_choice(word, before, j, lane);
    if (by_row) {
      const int64_t left = tile_end - i;
      const uint32_t valid = left >= kGroup ? 15u : left > 0 ? (1u << left) - 1u : 0u;
      choice[j] = {whole_row ? valid : 0u, uint32_t(place)};
    }
    param[j] = grad[j] = {{0, 0, 0, 0}};
    if (choice[j].bits != 0 || options.rest != Rest::kFrozen) {
      param[j] = load_group<kGroup>(e.param, dtype(kParamStream), aligned(kParamStream), i, tile_end);
      grad[j] = load_group<kGroup>(e.grad, dtype(kGradStream), aligned(kGradStream), i, tile_end);
    }
    const GroupChoice held = moves ? group_choice(old_word, old_before, j, lane) : choice[j];
    const uint32_t read = moment.clears ? 0u : held.bits & choice[j].bits;
#pragma unroll
    for (int v = 0; v < kGroup; ++v) {
      const int64_t at = slot + held.place + __popc(held.bits & ((1u << v) - 1u));
#pragma unroll
      for (int k = 0; k < kMaxStates; ++k) {
        x[j][v][k] = k < kStates && ((read >> v) & 1u) != 0 ? static_cast<const float*>(e.states[k])[at] : 0.0f;
      }
    }
  }
  __syncwarp();  // all lanes have read the old states and the old mask
  if (by_row ? row == units.first && col == 0 : row == 0 || e.lines.stride != 0) store_choice();
  const float rate = prepared.context.lr * options.rest_scale;
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const uint32_t bits = choice[j].bits;
    if (bits == 0 && options.rest == Rest::kFrozen) continue;
    const int64_t i = row * e.cols + col + (j * 32 + lane) * kGroup;
    float p[kGroup], g[kGroup];
    decode_group<float, kGroup>(dtype(kParamStream), param[j], p);
    decode_group<float, kGroup>(dtype(kGradStream), grad[j], g);
#pragma unroll
    for (int v = 0; v < kGroup; ++v) {
      if (((bits >> v) & 1u) == 0) {
        p[v] = step_rest(prepared.frame, options.rest, rate, g[v], p[v]);
        continue;
      }
      step_element<Rule, float>(prepared.frame, prepared.scalars, g[v], p[v], x[j][v], 0.0f);
      const int64_t at = slot + choice[j].place + __popc(bits & ((1u << v) - 1u));
#pragma unroll
      for (int k = 0; k < kStates; ++k) static_cast<float*>(e.states[k])[at] = x[j][v][k];
    }
    store_group<kGroup>(e.param, dtype(kParamStream), aligned(kParamStream), i, tile_end,
                        encode_group<float, kGroup>(dtype(kParamStream), p));
  }
}

template <class Rule>
__global__ void __launch_bounds__(kThreads, 2)
    subset_kernel(const SubsetParams<Rule> __grid_constant__ params, uint32_t* arrivals) {
  const CommonArgs& common = params.header.common;
  if (common.found_inf != nullptr && *common.found_inf != 0.0f) return;
  __shared__ SubsetEntry<Rule> e;
  const auto constants = constants_of<Rule, float>(params);
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const TensorFacts facts{e.index, e.lr, e.weight_decay, e.numel, e.rows, e.cols, (1u << subset_states<Rule>()) - 1u,
                            nullptr};
    SubsetMoment moment;
    const auto prepared = prepare_subset<Rule>(common, constants, facts, params.header.options, &moment);
    const int64_t first = int64_t(chunk - e.first_chunk) * kTilesPerChunk + threadIdx.x / 32;
    for (int t = 0; t < kTilesPerChunk; t += kWarps) {
      if (first + t < e.tiles) step_tile<Rule>(params.header.options, e, prepared, moment, first + t);
    }
  }
  count_step(params, arrivals);
}

template <class Rule>
void fill_entry(const SubsetCall& call, size_t index, SubsetEntry<Rule>& e) {
  const SubsetTensor& t = call.tensors[index];
  const Axis axis = call.options.axis;
  e.param = t.param;
  e.grad = t.grad;
  for (int k = 0; k < SubsetEntry<Rule>::kStored; ++k) e.states[k] = t.states[k];
  e.numel = t.numel;
  e.lr = t.lr;
  e.weight_decay = t.weight_decay;
  e.index = uint32_t(index);
  e.dtypes = uint32_t(t.param_dtype) << (4 * kParamStream) | uint32_t(t.grad_dtype) << (4 * kGradStream);
  const auto is_aligned = [&](const void* address, DType dtype) {
    const bool rows = t.rows == 1 || t.cols % kGroup == 0, lines = t.start % kGroup == 0 && t.stride % kGroup == 0;
    return rows && (lines || axis == Axis::kRow) &&
           reinterpret_cast<uintptr_t>(address) % uintptr_t(kGroup * item_size(dtype)) == 0;
  };
  if (is_aligned(t.param, t.param_dtype)) e.aligned |= uint16_t(1u << kParamStream);
  if (is_aligned(t.grad, t.grad_dtype)) e.aligned |= uint16_t(1u << kGradStream);
  e.mask = t.mask;
  e.rows = t.rows;
  e.cols = t.cols;
  e.lines = make_lines(axis, t);
  e.tiles_per_row = tiles_per_row(axis, e.lines, t.cols);
  e.tiles = tile_count(axis, t, e.tiles_per_row);
  e.seed = t.seed;
}

}  // namespace

template <class Rule>
cudaError_t run_subset(const SubsetCall& call, const Context& context) {
  TableLaunch<SubsetParams<Rule>> launch;
  auto& header = launch.header();
  header.common = call.common;
  header.options = call.options;
  if (!call.common.device_hypers) header.constants = make_constants<Rule, float>(call.common);
  launch.reserve(call.tensors.size());
  for (size_t i = 0; i < call.tensors.size(); ++i) {
    auto& e = launch.add();
    fill_entry<Rule>(call, i, e);
    launch.add_chunks((e.tiles + kTilesPerChunk - 1) / kTilesPerChunk);
  }
  auto* arrivals = reinterpret_cast<uint32_t*>(call.common.steps + call.tensors.size());
  return launch_tables<subset_kernel<Rule>>(launch, context, BlockPerChunk{1}, arrivals);
}

template cudaError_t run_subset<rules::Adam>(const SubsetCall&, const Context&);
template cudaError_t run_subset<rules::Lion>(const SubsetCall&, const Context&);
template cudaError_t run_subset<rules::Sgd>(const SubsetCall&, const Context&);
template cudaError_t run_subset<rules::Spam>(const SubsetCall&, const Context&);

}  // namespace momentum::cuda
