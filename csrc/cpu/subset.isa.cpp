// The map over a subset of the elements, for one instruction set. The chosen elements of a tile are packed side by side, as
// their states are; what is left is one dense loop for the rule and one for the rest.
#include "cpu/subset.h"

#include <algorithm>

#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "cpu/pack.h"
#include "cpu/random.h"
#include "cpu/stream.h"
#include "cpu/vector_math.h"

namespace momentum::cpu::MOMENTUM_ISA {

static_assert(kSubsetBlock <= kTile);

// Which units of one block are chosen.
struct Chosen {
  alignas(4 * kSubsetWords) uint32_t word[kSubsetWords] = {};

  bool has(int place) const { return ((word[place / 32] >> (place % 32)) & 1u) != 0; }
  // Of the first elements of one vector.
  uint32_t lanes(int place, int count) const { return (word[place / 32] >> (place % 32)) & ((1u << count) - 1u); }
  int count() const {
    int total = 0;
    for (int w = 0; w < kSubsetWords; w += 2) {
      total += __builtin_popcountll(uint64_t(word[w + 1]) << 32 | word[w]);
    }
    return total;
  }
  int before(int place) const {
    int count = 0;
    for (int w = 0; w < place / 32; ++w) count += __builtin_popcount(word[w]);
    return place % 32 == 0 ? count : count + __builtin_popcount(word[place / 32] & ((1u << (place % 32)) - 1u));
  }
};

static int block_units(const SubsetShares& shares, int64_t block) {
  const int64_t left = shares.units - block * kSubsetBlock;
  return int(left < kSubsetBlock ? left : kSubsetBlock);
}

static Chosen draw(const SubsetShares& shares, int64_t block, uint64_t seed, uint32_t period) {
  alignas(64) uint32_t keys[kSubsetBlock];
  const int64_t first = block * kSubsetBlock;
  const int units = block_units(shares, block);
  const int chosen = int(shares.before(block + 1) - shares.before(block));
  Chosen result;
  fill_words(seed, period, uint64_t(first), kSubsetBlock, keys);
  for (int i = 0; i < kSubsetBlock; ++i) keys[i] = i < units ? subset_key(keys[i], i) : ~0u;
  uint32_t limit = 0;  // the largest number with at most `chosen` keys below it
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t tried = limit | (1u << bit);
    int below = 0;
    for (int i = 0; i < kSubsetBlock; ++i) below += keys[i] < tried ? 1 : 0;
    limit = below <= chosen ? tried : limit;
  }
  for (int i = 0; i < kSubsetBlock; ++i) result.word[i / 32] |= uint32_t(keys[i] < limit) << (i % 32);
  return result;
}

static Chosen first_units(int units) {
  Chosen c;
  for (int w = 0; w * 32 < units; ++w) c.word[w] = units - w * 32 >= 32 ? ~0u : (1u << (units - w * 32)) - 1u;
  return c;
}

// The units [first, first + units) of a block, from place 0 on.
static Chosen part_of(const Chosen& block, int first, int units) {
  Chosen part = first_units(units);
  const int whole = first / 32, bits = first % 32;
  for (int w = 0; w * 32 < units; ++w) {
    const uint32_t low = block.word[w + whole];
    const uint32_t high = w + whole + 1 < kSubsetWords ? block.word[w + whole + 1] : 0u;
    part.word[w] &= uint32_t((uint64_t(high) << 32 | low) >> bits);
  }
  return part;
}

// The choices of a tensor at one step: stored, or drawn anew. Those of a tile are `words` into the mask.
class Choices {
 public:
  Choices(const SubsetTensor& t, const SubsetShares& shares, const SubsetMoment& moment)
      : shares_(shares), t_(t), moment_(moment) {}

  bool draws() const { return moment_.draws && t_.mask != nullptr; }

  const Chosen& now(const SubsetTile& tile, int64_t words) {
    if (words != last_words_) {
      last_ =
          draws() ? part_of(draw(shares_, tile.block, t_.seed, moment_.period), tile.shift, tile.units) : stored(tile, words);
    }
    last_words_ = words;
    return last_;
  }

  Chosen stored(const SubsetTile& tile, int64_t words) const {
    if (t_.mask == nullptr) return first_units(t_.count > 0 ? tile.units : 0);
    Chosen c;
    if (tile.units == kSubsetBlock) {
      std::memcpy(c.word, t_.mask + words, sizeof(c.word));
    } else {
      for (int w = 0; w * 32 < tile.units; ++w) c.word[w] = t_.mask[words + w];
    }
    return c;
  }

  void store(const SubsetTile& tile, int64_t words, const Chosen& c) const {
    for (int w = 0; w * 32 < tile.units; ++w) t_.mask[words + w] = c.word[w];
  }

 private:
  SubsetShares shares_;
  const SubsetTensor& t_;
  const SubsetMoment& moment_;
  int64_t last_words_ = -1;
  Chosen last_;
};

// Moves the states of a tile's chosen elements to where the new choice has them; what was not chosen before starts at zero.
static void move_states(const Chosen& old, const Chosen& now, int n, float* states) {
  float dense[kSubsetBlock] = {};
  int slot = 0;
  for (int i = 0; i < n; ++i) {
    if (old.has(i)) dense[i] = states[slot++];
  }
  slot = 0;
  for (int i = 0; i < n; ++i) {
    if (now.has(i)) states[slot++] = dense[i];
  }
}

// body(first, count) for each vector of n elements, the last of which may have fewer.
template <class Body>
static inline void each_vector(int n, const Body& body) {
  int i = 0;
  for (; i + kVector <= n; i += kVector) body(i, kVector);
  if (i < n) body(i, n - i);
}

// The gradients of the chosen elements, as the rule sees them, side by side.
static void pack(const Frame<float>& frame, const Chosen& chosen, int n, const float* p, const float* g, float* packed) {
  const Frame<float> f = frame;
  each_vector(n, [&](int i, int count) {
    const Floats gradient = effective_gradient(f, load_first(g + i, count), load_first(p + i, count));
    packed += pack_lanes(packed, gradient, chosen.lanes(i, count));
  });
}

// Steps all elements of a tile, the chosen ones by the updates that lie side by side.
template <Rest kRest>
[[gnu::noinline]] static void spread(const Frame<float>& frame, float rate, const Chosen& chosen, const float* updates, int n,
                                     float* __restrict p, const float* __restrict g) {
  const Frame<float> f = frame;
  each_vector(n, [&](int i, int count) {
    const uint32_t lanes = chosen.lanes(i, count);
    const Floats before = load_first(p + i, count);
    const Floats rest = update_of_rest(f, kRest, rate, load_first(g + i, count), before, unknown_zeros());
    const Floats after = updated(f, before, spread_lanes(updates, rest, lanes));
    store_first(p + i, kRest == Rest::kFrozen ? choose_lanes(after, before, lanes) : after, count);
    updates += __builtin_popcount(lanes);
  });
}

static auto spread_for(Rest rest) {
  switch (rest) {
    case Rest::kDecay:
      return spread<Rest::kDecay>;
    case Rest::kSign:
      return spread<Rest::kSign>;
    case Rest::kGradient:
      return spread<Rest::kGradient>;
    case Rest::kFrozen:
      break;
  }
  return spread<Rest::kFrozen>;
}

// Makes updates of gradients that lie side by side, with their states in place: behind those are the states of others. The
// gradient is all that these rules see of a parameter.
template <class Rule>
[[gnu::noinline]] static void step_chosen(const Prepared<Rule, float>& prepared, int n, float* __restrict g,
                                          float* const* states) {
  constexpr int kStates = subset_states<Rule>();
  static_assert(kStates == 1 || kStates == 2);
  float* __restrict x0 = states[0];
  float* __restrict x1 = states[kStates - 1];
  const Frame<float> f = prepared.frame;
  const typename Rule::template Scalars<float> s = prepared.scalars;
  each_vector(n, [&](int i, int count) {
    Floats x[kMaxStates] = {load_first(x0 + i, count)};
    if constexpr (kStates > 1) x[1] = load_first(x1 + i, count);
    store(g + i, masked_update<Rule, float>(f, s, load<Floats>(g + i), Floats{}, x, Floats{}));
    store_first(x0 + i, x[0], count);
    if constexpr (kStates > 1) store_first(x1 + i, x[1], count);
  });
}

// Tiles whose chosen elements are stepped together, for as long as their states follow each other: what was packed is then
// stored before it is loaded again. With two, a processor still reads the next tiles' elements meanwhile; with four it waits
// for memory, and a step beyond the caches takes a fifth longer.
template <class Rule>
class Batch {
 public:
  Batch(const SubsetTask& task, const Prepared<Rule, float>& prepared)
      : t_(*task.tensor),
        options_(task.call->options),
        prepared_(prepared),
        rate_(prepared.context.lr * options_.rest_scale),
        spread_(spread_for(options_.rest)) {}

  // Elements [first, first + n), the states of those chosen from `slot` on.
  void add(int64_t first, int n, const Chosen& chosen, int count, int64_t slot) {
    if (count == 0 && options_.rest == Rest::kFrozen) return;
    if (parts_ == kParts || (total_ > 0 && count > 0 && slot != slot_ + total_)) flush();
    if (total_ == 0) slot_ = slot;
    Part& part = part_[parts_];
    part.param = make_stream<float>(t_.param, t_.param_dtype, buffers_[0][parts_]);
    part.p = part.param.open(first, n, true);
    part.g = make_stream<float>(t_.grad, t_.grad_dtype, buffers_[1][parts_]).open(first, n, true);
    part.chosen = chosen;
    part.first = first;
    part.n = n;
    part.count = count;
    ++parts_;
    if (count == 0) return;
    pack(prepared_.frame, chosen, n, part.p, part.g, updates_ + total_);
    total_ += count;
  }

  void flush() {
    float* states[kStates];
    for (int k = 0; k < kStates; ++k) states[k] = t_.states[k] + slot_;
    if (total_ > 0) step_chosen<Rule>(prepared_, total_, updates_, states);
    int done = 0;
    for (int i = 0; i < parts_; ++i) {
      const Part& part = part_[i];
      spread_(prepared_.frame, rate_, part.chosen, updates_ + done, part.n, part.p, part.g);
      done += part.count;
      part.param.close(part.first, part.n);
    }
    parts_ = total_ = 0;
  }

 private:
  static constexpr int kParts = 2, kStates = subset_states<Rule>();

  struct Part {
    TileStream<float> param;
    float* p;
    const float* g;
    Chosen chosen;
    int64_t first;
    int n, count;
  };

  const SubsetTensor& t_;
  const SubsetOptions& options_;
  const Prepared<Rule, float>& prepared_;
  const float rate_;
  decltype(&spread<Rest::kFrozen>) const spread_;
  int parts_ = 0, total_ = 0;
  int64_t slot_ = 0;
  Part part_[kParts];
  alignas(64) float updates_[kParts * kSubsetBlock + kVector] = {};  // before they are made: gradients
  alignas(64) float buffers_[2][kParts][kSubsetBlock];
};

template <class Rule>
static void map_subset(const SubsetTask& task, int64_t begin, int64_t end) {
  constexpr int kStates = subset_states<Rule>();
  const SubsetTensor& t = *task.tensor;
  const SubsetOptions& options = task.call->options;
  const auto& constants = *reinterpret_cast<const typename Rule::template Constants<float>*>(task.constants->bytes);
  SubsetMoment moment;
  const TensorFacts facts{task.index, t.lr, t.weight_decay, t.numel, t.rows, t.cols, (1u << kStates) - 1u, nullptr};
  const Prepared<Rule, float> prepared = prepare_subset<Rule>(task.call->common, constants, facts, options, &moment);
  const SubsetLines lines = make_lines(options.axis, t);
  Choices choices(t, lines.shares, moment);
  Batch<Rule> batch(task, prepared);
  const int64_t tiles = tiles_per_row(options.axis, lines, t.cols);
  const bool by_row = options.axis == Axis::kRow;
  int64_t row = begin / tiles, piece = begin % tiles - 1;
  SubsetLine line = lines.line(row);
  for (int64_t tile = begin; tile < end; ++tile) {
    if (++piece == tiles) {
      piece = 0;
      line = lines.line(++row);
    }
    const int64_t index = by_row ? line.tile_of(row) : piece;
    const SubsetTile units = line.tile(lines.shares, index);
    if (units.units <= 0) continue;  // of a line with fewer tiles than others
    const int64_t words = (index + (lines.stride == 0 ? 0 : row * tiles)) * kSubsetWords;
    const Chosen& now = choices.now(units, words);
    if (t.rows == 0) {
      if (choices.draws()) choices.store(units, words, now);
      continue;
    }
    const int64_t col = by_row ? piece * kSubsetBlock : units.first;
    const int n = !by_row ? units.units : int(t.cols - col < kSubsetBlock ? t.cols - col : kSubsetBlock);
    const int place = by_row ? int(row - units.first) : 0;
    const Chosen of_row = by_row ? first_units(now.has(place) ? n : 0) : Chosen{};
    const Chosen& here = by_row ? of_row : now;
    const int count = here.count();
    const int64_t slot = by_row ? (units.slot + now.before(place)) * t.cols + col : row * lines.room + units.slot;
    for (int k = 0; k < kStates && count > 0; ++k) {
      if (moment.clears) {
        std::fill_n(t.states[k] + slot, count, 0.0f);
      } else if (choices.draws()) {
        move_states(choices.stored(units, words), now, n, t.states[k] + slot);
      }
    }
    const bool owns = by_row ? place == 0 && col == 0 : row == 0 || lines.stride != 0;
    if (choices.draws() && owns) choices.store(units, words, now);
    batch.add(row * t.cols + col, n, here, count, slot);
  }
  batch.flush();
}

template <class Rule>
static void subset_constants(const CommonArgs& common, ConstantsStorage* storage) {
  using Constants = typename Rule::template Constants<float>;
  static_assert(sizeof(Constants) <= kConstantsSize);
  *reinterpret_cast<Constants*>(storage->bytes) = make_constants<Rule, float>(common);
}

template <class Rule>
const SubsetKernels& subset_kernels() {
  static constexpr SubsetKernels table = {subset_constants<Rule>, map_subset<Rule>};
  return table;
}

template const SubsetKernels& subset_kernels<rules::Adam>();
template const SubsetKernels& subset_kernels<rules::Lion>();
template const SubsetKernels& subset_kernels<rules::Sgd>();
template const SubsetKernels& subset_kernels<rules::Spam>();

}  // namespace momentum::cpu::MOMENTUM_ISA
