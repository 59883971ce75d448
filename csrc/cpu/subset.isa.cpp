// The map over a subset of the elements, for one instruction set. The chosen elements of a tile are gathered, their states lie
// side by side as they are; what is left is one dense loop for the rule and one for the rest.
#include "cpu/subset.h"

#include "core/rules/adam.h"
#include "core/rules/lion.h"
#include "core/rules/sgd.h"
#include "core/rules/spam.h"
#include "cpu/stream.h"

namespace momentum::cpu::MOMENTUM_ISA {

static_assert(kSubsetBlock <= kTile);

// Which units of one block are chosen.
struct Chosen {
  uint32_t word[kSubsetWords] = {};

  bool has(int place) const { return ((word[place / 32] >> (place % 32)) & 1u) != 0; }
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
  for (int i = 0; i < kSubsetBlock; i += 4) {
    const PhiloxWords words = philox_group(seed, period, uint64_t(first + i) / 4);
    for (int v = 0; v < 4; ++v) keys[i + v] = i + v < units ? subset_key(words.word[v], i + v) : ~0u;
  }
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

// The choices of a tensor at one step: stored, or drawn anew.
class Choices {
 public:
  Choices(const SubsetTensor& t, Axis axis, const SubsetMoment& moment)
      : shares_(make_shares(unit_count(axis, t.rows, t.cols), t.count)), t_(t), moment_(moment) {}

  bool draws() const { return moment_.draws && t_.mask != nullptr; }
  int64_t before(int64_t block) const { return shares_.before(block); }

  const Chosen& now(int64_t block) {
    if (block != last_block_) last_ = draws() ? draw(shares_, block, t_.seed, moment_.period) : stored(block);
    last_block_ = block;
    return last_;
  }

  Chosen stored(int64_t block) const {
    Chosen c;
    const int units = block_units(shares_, block);
    for (int w = 0; w * 32 < units; ++w) {
      const uint32_t all = units - w * 32 >= 32 ? ~0u : (1u << (units - w * 32)) - 1u;
      c.word[w] = t_.mask != nullptr ? t_.mask[block * kSubsetWords + w] : t_.count > 0 ? all : 0u;
    }
    return c;
  }

  void store(int64_t block, const Chosen& c) const {
    for (int w = 0; w * 32 < block_units(shares_, block); ++w) t_.mask[block * kSubsetWords + w] = c.word[w];
  }

 private:
  SubsetShares shares_;
  const SubsetTensor& t_;
  const SubsetMoment& moment_;
  int64_t last_block_ = -1;
  Chosen last_;
};

// Moves the states of a block's chosen elements to where the new choice has them; what was not chosen before starts at zero.
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

static void clear(float* states, int count) {
  for (int i = 0; i < count; ++i) states[i] = 0.0f;
}

template <class Rule>
static void step_chosen(const Prepared<Rule, float>& prepared, int n, float* __restrict p, const float* __restrict g,
                        float* const* states) {
  constexpr int kStates = subset_states<Rule>();
  float* __restrict x0 = states[0];
  float* __restrict x1 = kStates > 1 ? states[1] : nullptr;
  static_assert(kStates == 1 || kStates == 2);
  const Frame<float> f = prepared.frame;
  const typename Rule::template Scalars<float> s = prepared.scalars;
#pragma GCC ivdep
  for (int i = 0; i < n; ++i) {
    float x[kMaxStates] = {};
    x[0] = x0[i];
    if constexpr (kStates > 1) x[1] = x1[i];
    float value = p[i];
    step_element<Rule, float>(f, s, g[i], value, x, 0.0f);
    p[i] = value;
    x0[i] = x[0];
    if constexpr (kStates > 1) x1[i] = x[1];
  }
}

template <class Rule>
static void map_subset(const SubsetTask& task, int64_t begin, int64_t end) {
  constexpr int kStates = subset_states<Rule>();
  const SubsetTensor& t = *task.tensor;
  const SubsetOptions& options = task.call->options;
  const auto& constants = *reinterpret_cast<const typename Rule::template Constants<float>*>(task.constants->bytes);
  SubsetMoment moment;
  const TensorFacts facts{task.index, t.lr, t.weight_decay, t.numel, t.rows, t.cols, (1u << kStates) - 1u, nullptr};
  const Prepared<Rule, float> prepared = prepare_subset<Rule>(task.call->common, constants, facts, options, &moment);
  const Frame<float> frame = prepared.frame;
  const float rate = prepared.context.lr * options.rest_scale;
  Choices choices(t, options.axis, moment);

  alignas(64) float buffers[4][kSubsetBlock];
  const TileStream<float> param = make_stream<float>(t.param, t.param_dtype, buffers[0]);
  const TileStream<float> grad = make_stream<float>(t.grad, t.grad_dtype, buffers[1]);
  float *chosen_p = buffers[2], *chosen_g = buffers[3];
  uint8_t places[kSubsetBlock];
  const int64_t tiles = tiles_per_row(t.cols);
  const bool by_row = options.axis == Axis::kRow;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile / tiles, col = tile % tiles * kSubsetBlock;
    const int n = int(t.cols - col < kSubsetBlock ? t.cols - col : kSubsetBlock);
    const int64_t block = (by_row ? row : col) / kSubsetBlock;
    const Chosen now = choices.now(block);
    int count = 0;
    int64_t slot;
    if (by_row) {
      const int place = int(row % kSubsetBlock);
      slot = (choices.before(block) + now.before(place)) * t.cols + col;
      count = now.has(place) ? n : 0;
      for (int i = 0; i < count; ++i) places[i] = uint8_t(i);
    } else {
      slot = row * t.count + choices.before(block);
      for (int w = 0; w * 32 < n; ++w) {
        for (uint32_t rest = now.word[w]; rest != 0; rest &= rest - 1u) places[count++] = uint8_t(w * 32 + __builtin_ctz(rest));
      }
    }
    float* states[kStates];
    for (int k = 0; k < kStates; ++k) states[k] = t.states[k] + slot;
    if (choices.draws()) {
      for (int k = 0; k < kStates && count > 0; ++k) {
        if (moment.clears) {
          clear(states[k], count);
        } else {
          move_states(choices.stored(block), now, n, states[k]);
        }
      }
      if (by_row ? row % kSubsetBlock == 0 && col == 0 : row == 0) choices.store(block, now);
    } else if (moment.clears) {
      for (int k = 0; k < kStates; ++k) clear(states[k], count);
    }
    if (count == 0 && options.rest == Rest::kFrozen) continue;
    const int64_t first = row * t.cols + col;
    float* p = param.open(first, n, true);
    const float* g = grad.open(first, n, true);
    for (int i = 0; i < count; ++i) {
      chosen_p[i] = p[places[i]];
      chosen_g[i] = g[places[i]];
    }
    if (count > 0) step_chosen<Rule>(prepared, count, chosen_p, chosen_g, states);
    if (options.rest != Rest::kFrozen && count < n) {
#pragma GCC ivdep
      for (int i = 0; i < n; ++i) p[i] = step_rest(frame, options.rest, rate, g[i], p[i]);
    }
    for (int i = 0; i < count; ++i) p[places[i]] = chosen_p[i];
    param.close(first, n);
  }
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
