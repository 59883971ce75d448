#include "cpu/lists.h"

#include "torch/cpu/parallel.h"
#include "torch/lists_backend.h"

namespace momentum::ops::backend {

void run_list(const char*, const lists::Call<lists::Extrapolate>& call, int32_t) { cpu::run_list(call, on_torch_threads); }
void run_list(const char*, const lists::Call<lists::Move>& call, int32_t) { cpu::run_list(call, on_torch_threads); }
void clear_list(const char*, const std::vector<Bytes>& tensors, int32_t) { cpu::clear_list(tensors, on_torch_threads); }

}  // namespace momentum::ops::backend
