// How a rule describes itself. A rule is one struct in core/rules/ that knows what happens to one element; it knows nothing of
// memory, dtypes or threads. See CONTRIBUTING.md ("Adding a rule") and core/rules/adam.h for the pattern:
//
//   kName      op name without the trailing underscore
//   kStates    per-element states, required ones first; an absent optional state reads as 0 and is not written
//   kHypers    hyper-parameters: schema name, kind, default, allowed range
//   Constants  what depends on the hyper-parameters alone, computed in double and kept in the arithmetic type
//   Scalars    what one tensor needs at one step, made by `prepare` from the constants and a TensorContext
//   update     one element, or a vector of them: given gradient, parameter and states, writes the new states and returns what
//              is subtracted from the parameter (learning rate included)
// and optionally
//   kScalars     persistent per-tensor float scalars (state "scalars")
//   kReductions  reductions that run before the map; `reduce_op(k, hypers)` says how reduction k combines, `measure` is its
//                operand, of one element or a vector (not negative where it is kMax), and `finalize` updates the persistent
//                scalars once its total is known
//   segment_axis the axis of the reductions, when they are per row or column; `update` then gets the total of its segment
//   kReductionReads  bit k: the reductions read state k (all states otherwise)
//   kReductionReadsParam  they read the parameter
//   kProducts    in the place of kReductions: how many sums one pass over the elements makes, in double, for each tensor or,
//                with `segment_axis`, row; `products` writes their operands, of one element or a vector. With rows,
//       kSums          how many sums per tensor are then made of those of its rows; `summarize` writes the operands of a row
//       segment_value  what `update` gets as its total: a function of the sums of the element's row
//       kMatrices      tensors of fewer than two dimensions have no rows: TensorContext::rows is 0
//   kSelects     in the place of a sum: the kSelectionPasses reductions find the k-th largest of the magnitudes of `measure`, k
//                being `selected` of how many elements the tensor has (core/selection.h)
//   settle       turns a tensor's sums into the numbers that `prepare` reads, once per tensor
//   moments      of a rule whose two states are averages of the gradient and its square, and whose update is made of the
//                new ones as Moments says: what a backend may use in the place of `update`
//   decay_scale  what the tensor's weight decay is multiplied by, unless it is L2
//   kManyRegisters  the GPU's complete map needs more registers than two blocks on a multiprocessor leave
//   fresh        true where this step does not use the stored states (they are then not read)
#pragma once

#include <cstdint>

#include "core/config.h"

namespace momentum {

inline constexpr int kMaxStates = 4;
inline constexpr int kMaxHypers = 12;
inline constexpr int kMaxReductions = 4;  // the count of the cautious mask is one of them
inline constexpr int kMaxSums = 8;        // that one pass makes for a segment

struct StateInfo {
  const char* name;  // as in the op's schema: plural of the optimizer's state name
  bool optional = false;
};

enum class HyperKind : uint8_t { kFloat, kInt, kBool };

struct HyperInfo {
  const char* name;
  HyperKind kind;
  double value;  // default
  double low;    // inclusive
  double high;   // inclusive unless high_open
  bool high_open = false;
  bool tensor = false;  // may also be given as a device tensor `<name>_tensor`
};

enum class ReduceOp : uint8_t { kSum, kMax };
enum class Axis : int8_t { kTensor = -1, kColumn = 0, kRow = 1 };

// What `prepare` may look at. Totals are those of the reductions that have already run.
template <class T>
struct TensorContext {
  T lr;
  T step;  // number of this step, from 1
  int64_t numel;
  int64_t rows, cols;             // the tensor as dim 0 x the rest; 0 x all of it where kMatrices says so
  unsigned present;               // bit k: state k is stored
  int completed;                  // reductions that have run
  double totals[kMaxReductions];  // per-tensor totals of those that have
  const float* scalars;           // persistent scalars, or null
  const double* sums;             // kSums or, without them, kProducts numbers, or what a selection found, once known; else null
};

// A step by the moments of the gradient: m = decay[0] m + gain[0] g, v = decay[1] v + gain[1] g^2, and what is subtracted from
// the parameter is step_size m / (root sqrt(v) + eps). Gradients beyond the limit are multiplied by clip_factor before.
template <class T>
struct Moments {
  T decay[2], gain[2];
  T step_size, root, eps;
  bool apply = true;  // whether this step is such a one
  T limit = T(__builtin_huge_val()), clip_factor = T(1);
};

// Optional parts of a rule, with their defaults.
template <class Rule>
constexpr int scalar_count() {
  if constexpr (requires { Rule::kScalars; }) {
    return Rule::kScalars;
  } else {
    return 0;
  }
}

template <class Rule>
constexpr int product_count() {
  if constexpr (requires { Rule::kProducts; }) {
    return Rule::kProducts;
  } else {
    return 0;
  }
}

template <class Rule>
constexpr int sum_count() {
  if constexpr (requires { Rule::kSums; }) {
    return Rule::kSums;
  } else {
    return 0;
  }
}

// Products are reduction 0; the sums that are made of those of rows, without another look at the elements, reduction 1.
template <class Rule>
constexpr int reduction_count() {
  if constexpr (product_count<Rule>() > 0) {
    return sum_count<Rule>() > 0 ? 2 : 1;
  } else if constexpr (requires { Rule::kReductions; }) {
    return Rule::kReductions;
  } else {
    return 0;
  }
}

template <class Rule>
constexpr int state_count() {
  if constexpr (requires { Rule::kStates; }) {
    return int(sizeof(Rule::kStates) / sizeof(Rule::kStates[0]));
  } else {
    return 0;
  }
}

template <class Rule>
constexpr int required_state_count() {
  int required = 0;
  if constexpr (requires { Rule::kStates; }) {
    for (const StateInfo& state : Rule::kStates) required += state.optional ? 0 : 1;
  }
  return required;
}

template <class Rule>
constexpr int hyper_count() {
  return int(sizeof(Rule::kHypers) / sizeof(Rule::kHypers[0]));
}

// Whether the update of an element depends on the total of its row or column.
template <class Rule>
constexpr bool uses_segments() {
  return requires { Rule::segment_axis(static_cast<const double*>(nullptr)); };
}

// Whether that depends on several totals of the segment.
template <class Rule>
constexpr bool has_segment_values() {
  return uses_segments<Rule>() && product_count<Rule>() > 0;
}

template <class Rule>
constexpr bool has_map() {
  return requires(const typename Rule::template Scalars<float>& scalars, float* states) {
    Rule::template update<float>(scalars, 1.0f, 1.0f, states, 1.0f);
  };
}

template <class Rule>
constexpr bool matrices_only() {
  return requires { Rule::kMatrices; };
}

template <class Rule>
constexpr bool reductions_read_param() {
  return requires { Rule::kReductionReadsParam; };
}

template <class Rule>
constexpr bool many_registers() {
  if constexpr (requires { Rule::kManyRegisters; }) {
    return Rule::kManyRegisters;
  } else {
    return state_count<Rule>() >= 4 || scalar_count<Rule>() > 0;
  }
}

template <class Rule>
constexpr bool has_moments() {
  return requires(const typename Rule::template Scalars<float>& scalars) { Rule::moments(scalars); };
}

template <class Rule>
constexpr bool selects() {
  return requires { Rule::kSelects; };
}

template <class Rule>
constexpr unsigned reduction_reads() {
  if constexpr (requires { Rule::kReductionReads; }) {
    return Rule::kReductionReads;
  } else {
    return ~0u;
  }
}

template <class Rule, class T>
MOMENTUM_HD bool fresh(const typename Rule::template Scalars<T>& scalars) {
  if constexpr (requires { Rule::fresh(scalars); }) {
    return Rule::fresh(scalars);
  } else {
    return false;
  }
}

}  // namespace momentum
