// Where a checked operation over a list runs; like torch/backend.h, one definition per shared object.
#pragma once

#include "core/bytes.h"
#include "core/lists.h"
#include "torch/backend.h"

namespace momentum::ops::backend {

void run_list(const char* op, const lists::Call<lists::Extrapolate>& call, int32_t device_index);
void run_list(const char* op, const lists::Call<lists::Move>& call, int32_t device_index);
void clear_list(const char* op, const std::vector<Bytes>& tensors, int32_t device_index);

}  // namespace momentum::ops::backend
