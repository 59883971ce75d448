// Checks of ops over lists of tensors whose streams have equal shapes.
#pragma once

#include <vector>

#include "core/lists.h"
#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stack.h"

namespace momentum::ops {

// Of the first tensor, which the others must share.
Device device_of(const TensorList& list);

// Fills stream `stream` of all tensors from a list: like the params in shape and strides, float64 only with float64 params.
void add_stream(const Checker& check, const char* argument, const TensorList& list, const TensorList& params, int stream,
                bool written, std::vector<lists::Tensors>& tensors, OverlapCheck& overlap);

}  // namespace momentum::ops
