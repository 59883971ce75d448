// Turns the arguments of a step on a subset into a SubsetCall, refusing whatever a kernel must not see.
//
// `shards` has four numbers per param that is a part of a whole: the whole's units, the first one of the param, how many
// neighbours in the whole follow each other in the param, and how far it is from one such line to the next.
#pragma once

#include <string>
#include <vector>

#include "torch/subset_arguments.h"

namespace momentum::ops {

// A step that may run: nothing in it refers to the arguments it was made from.
struct CheckedSubset {
  std::string op;
  SubsetCall call;
  int32_t device_index;
};

inline std::string subset_op(const SubsetDescription& rule) { return std::string(rule.rule) + "_subset_"; }

// All rules of this shared object that have such steps.
std::vector<const SubsetDescription*>& registered_subsets();

CheckedSubset check_subset(const SubsetDescription& rule, const SubsetArguments& arguments, const TensorLoop& loop);
void run_subset(const SubsetDescription& rule, const CheckedSubset& step);

}  // namespace momentum::ops
