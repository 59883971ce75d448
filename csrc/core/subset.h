// Steps whose rule serves a subset of the elements of each tensor, with states for those alone.
//
// A tensor is a matrix, dim 0 by the rest. Its units are its elements, its columns or its rows (SubsetOptions::axis), and
// `count` of them are chosen. States are compact: the chosen elements in the order of the tensor, so `count`, rows x count or
// count x cols numbers. A mask has one bit per unit.
//
// Units are drawn in blocks of 256: block b gets its share, floor((b + 1) 256 count / units) - floor(b 256 count / units), so
// that the first state of a block is known without counting what is chosen before it. Nothing is summed over the tensor,
// nothing has to be stored beside the mask, the number of states never changes, and a step that draws anew does so as it goes:
// one pass, one launch. Every unit is chosen with probability count / units; the draw is the one of (seed, period, unit), on
// every backend the same bits.
//
// A tensor may be a part of a whole that several processes hold. `count` and blocks are the whole's, so every process finds its
// part of one choice on its own. Units that are neighbours in the whole form a line, cut into tiles at the borders of blocks. A
// tile has room for as many units as it may get, so that a line that begins or ends inside a block may leave some room unused;
// the lines of a whole tensor leave none.
#pragma once

#include <cstdint>
#include <vector>

#include "core/call.h"
#include "core/philox.h"
#include "core/prepare.h"

namespace momentum {

inline constexpr int kSubsetBlock = 256;  // units drawn together, and elements of a tile
inline constexpr int kSubsetWords = kSubsetBlock / 32;

// What happens to the elements that are not chosen.
enum class Rest : int8_t { kFrozen = 0, kDecay = 1, kSign = 2, kGradient = 3 };

struct SubsetOptions {
  Axis axis = Axis::kTensor;  // kTensor: a unit is an element
  Rest rest = Rest::kFrozen;
  float rest_scale = 1.0f;  // of the learning rate of the rest
  // Units are drawn at the first step and wherever step - phase, phase 0 or 1, is a multiple of `interval` (0: nowhere else).
  int64_t interval = 0, phase = 0;
  bool restart =
      false;  // a draw zeroes the states and the rule counts steps from it; otherwise elements chosen again keep theirs
};

// One tensor of the list.
struct SubsetTensor {
  void* param = nullptr;
  const void* grad = nullptr;
  float* states[kMaxStates] = {};
  uint32_t* mask = nullptr;  // null where all units or none are chosen
  DType param_dtype = DType::kFloat32, grad_dtype = DType::kFloat32;
  int64_t numel = 0;
  int64_t rows = 1, cols = 0;    // of units that are elements: lines x units of a line
  int64_t count = 0, units = 0;  // of the whole
  int64_t start = 0;             // the first unit in the whole
  int64_t stride = 0;            // from a line to the next; 0 where there is one, which rows may share
  double lr = 0, weight_decay = 0;
  uint64_t seed = 0;
};

struct SubsetCall {
  VectorLeftAsIs<SubsetTensor> tensors;
  CommonArgs common;
  SubsetOptions options;
};

// A rule's required states; the optional one of a rule that has no other.
template <class Rule>
constexpr int subset_states() {
  return required_state_count<Rule>() > 0 ? required_state_count<Rule>() : state_count<Rule>();
}

// How many units are chosen before a block, in 64 bits: before(b) = floor(b 256 count / units) = b each + floor(b rest /
// units).
struct SubsetShares {
  int64_t units, count, each, rest;

  MOMENTUM_HD int64_t blocks() const { return (units + kSubsetBlock - 1) / kSubsetBlock; }
  MOMENTUM_HD int64_t before(int64_t block) const {
    return block >= blocks() ? count : block * each + (rest == 0 ? 0 : block * rest / units);
  }
};

MOMENTUM_HD SubsetShares make_shares(int64_t units, int64_t count) {
  const int64_t scaled = count * kSubsetBlock;
  return units > 0 ? SubsetShares{units, count, scaled / units, scaled % units} : SubsetShares{0, 0, 0, 0};
}

// Units of a line that are in one block.
struct SubsetTile {
  int64_t block;
  int shift;      // place of the first in the block
  int64_t first;  // place of the first in the line
  int units;      // at most 0 behind the end of the line
  int64_t slot;   // of its states among those of the line, counted in units
};

struct SubsetLine {
  int64_t start, length;
  int64_t lead;  // what the slots of all tiles but the first have before those of their blocks

  MOMENTUM_HD int64_t tile_of(int64_t unit) const { return (start + unit) / kSubsetBlock - start / kSubsetBlock; }
  MOMENTUM_HD int64_t tiles() const { return length == 0 ? 0 : tile_of(length - 1) + 1; }
  MOMENTUM_HD SubsetTile tile(const SubsetShares& shares, int64_t index) const {
    const int64_t block = start / kSubsetBlock + index;
    const int64_t first = index == 0 ? 0 : block * kSubsetBlock - start;
    const int shift = index == 0 ? int(start % kSubsetBlock) : 0, room = kSubsetBlock - shift;
    const int units = length - first < room ? int(length - first) : room;
    return {block, shift, first, units, index == 0 ? 0 : lead + shares.before(block)};
  }
};

// The most units of a tile that may be chosen.
MOMENTUM_HD int64_t tile_room(const SubsetShares& shares, const SubsetTile& tile) {
  const int64_t share = shares.before(tile.block + 1) - shares.before(tile.block);
  return share < tile.units ? share : tile.units;
}

MOMENTUM_HD SubsetLine make_line(const SubsetShares& shares, int64_t start, int64_t length) {
  SubsetLine line{start, length, 0};
  if (length > 0) line.lead = tile_room(shares, line.tile(shares, 0)) - shares.before(start / kSubsetBlock + 1);
  return line;
}

// The lines of a tensor: one, which the rows share where columns are chosen, or one per row.
struct SubsetLines {
  SubsetShares shares;
  SubsetLine first;
  int64_t stride;
  int64_t tiles;  // of a line, the most that one has
  int64_t room;   // states of a line, in units

  MOMENTUM_HD SubsetLine line(int64_t row) const {
    return stride == 0 ? first : make_line(shares, first.start + row * stride, first.length);
  }
};

inline SubsetLines make_lines(Axis axis, const SubsetTensor& t) {
  const SubsetShares shares = make_shares(t.units, t.count);
  SubsetLines lines{shares, make_line(shares, t.start, axis == Axis::kRow ? t.rows : t.cols), t.stride, 0, 0};
  const int64_t length = lines.first.length;
  if (length == 0) return lines;
  lines.tiles = t.stride % kSubsetBlock == 0 ? lines.first.tiles() : (length + 2 * kSubsetBlock - 2) / kSubsetBlock;
  if (t.stride == 0) {
    const SubsetTile last = lines.first.tile(shares, lines.tiles - 1);
    lines.room = last.slot + tile_room(shares, last);
  } else {
    const int64_t most = lines.tiles * (shares.each + (shares.rest > 0 ? 1 : 0));
    lines.room = most < length ? most : length;
  }
  return lines;
}

// Words of a mask: a bit for each unit, those of a tile from a word of their own on.
inline int64_t mask_words(const SubsetLines& lines, int64_t rows) {
  if (lines.stride != 0) return rows * lines.tiles * kSubsetWords;
  if (lines.tiles == 0) return 0;
  const SubsetTile last = lines.first.tile(lines.shares, lines.tiles - 1);
  return (lines.tiles - 1) * kSubsetWords + (last.units + 31) / 32;
}

// Tiles of elements in a row. Where rows are chosen, their elements are not those of a line.
inline int64_t tiles_per_row(Axis axis, const SubsetLines& lines, int64_t cols) {
  return axis == Axis::kRow ? (cols + kSubsetBlock - 1) / kSubsetBlock : lines.tiles;
}

// Tiles to go through. A part without rows still has a choice of columns to draw: the whole may be saved from its copy.
inline int64_t tile_count(Axis axis, const SubsetTensor& t, int64_t tiles_per_row) {
  return tiles_per_row * (t.rows == 0 && axis == Axis::kColumn && t.mask != nullptr ? 1 : t.rows);
}

// The least keys of a block are chosen. The low byte makes keys differ; none has its highest bit set.
MOMENTUM_HD uint32_t subset_key(uint32_t word, int place) { return word >> 9 << 8 | uint32_t(place); }

// Where a tensor stands at its step `step`, counted from 1.
struct SubsetMoment {
  bool draws;
  bool clears;      // states are not read
  uint32_t period;  // number of the draw that counts
  float step;       // of the rule
};

MOMENTUM_HD SubsetMoment subset_moment(const SubsetOptions& o, float now) {
  const int64_t step = int64_t(now);
  if (o.interval <= 0) return {step == 1, step == 1 && o.restart, 0u, now};
  const int64_t period = (step - o.phase) / o.interval, begin = period * o.interval + o.phase;
  const int64_t first = begin > 1 ? begin : 1;
  const bool draws = step == first;
  return {draws, draws && o.restart, uint32_t(period), o.restart ? float(step - first + 1) : now};
}

// The scalars of one tensor, with the step of the rule.
template <class Rule>
MOMENTUM_HD Prepared<Rule, float> prepare_subset(const CommonArgs& common,
                                                 const typename Rule::template Constants<float>& constants,
                                                 const TensorFacts& facts, const SubsetOptions& options, SubsetMoment* moment) {
  Prepared<Rule, float> p = prepare<Rule, float>(common, constants, TotalsLayout{}, facts);
  *moment = subset_moment(options, p.context.step);
  p.context.step = moment->step;
  p.scalars = Rule::template prepare<float>(constants, p.context);
  moment->clears = moment->clears || fresh<Rule, float>(p.scalars);
  return p;
}

// What is taken off an element that is not chosen, or off a vector V of them: `nothing` where it decays at most.
template <class V>
MOMENTUM_HD V update_of_rest(const Frame<float>& f, Rest rest, float rate, V g, V p, V nothing = V{}) {
  if (rest != Rest::kSign && rest != Rest::kGradient) return nothing;
  g = effective_gradient(f, g, p);
  return rest == Rest::kSign ? rate * math::sign(g) : rate * g;
}

template <class V>
MOMENTUM_HD V step_rest(const Frame<float>& f, Rest rest, float rate, V g, V p) {
  return rest == Rest::kFrozen ? p : updated(f, p, update_of_rest(f, rest, rate, g, p));
}

}  // namespace momentum
