// Ops over lists of tensors that are no optimizer step: extrapolation and resetting states.
#include <torch/csrc/stable/library.h>

#include "torch/list_checks.h"
#include "torch/lists_backend.h"

namespace momentum::ops {
namespace {

using torch::stable::detail::StableLibrary;

// extrapolate_(Tensor(a!)[] params, Tensor(b!)[] previous, *, float alpha, bool roll=True)
void extrapolate(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "extrapolate_";
  Stack stack(values);
  const TensorList params = stack.tensors(), previous = stack.tensors();
  lists::Call<lists::Extrapolate> call;
  call.op.alpha = stack.number();
  call.op.roll = stack.boolean();
  const Device device = device_of(params);
  const Checker check(kOp, device);
  OverlapCheck overlap;
  call.tensors.resize(params.size());
  add_stream(check, "params", params, params, 0, true, call.tensors, overlap);
  add_stream(check, "previous", previous, params, 1, call.op.roll, call.tensors, overlap);
  check.range("alpha", -1, call.op.alpha, -1e300, 1e300, false);
  overlap.check(kOp);
  if (params.size() > 0) backend::run_list(kOp, call, device.index);
}

// reset_state_(Tensor(a!)[] states, Tensor(b!)[] steps, *, bool keep_step=False)
void reset_state(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "reset_state_";
  Stack stack(values);
  const TensorList states = stack.tensors(), steps = stack.tensors();
  const bool keep_step = stack.boolean();
  const Device device = device_of(states.size() > 0 ? states : steps);
  const Checker check(kOp, device);
  OverlapCheck overlap;
  std::vector<Bytes> tensors;
  const auto add = [&](const char* argument, const TensorList& list, bool cleared) {
    for (size_t i = 0; i < list.size(); ++i) {
      const TensorInfo info = describe(list[i]);
      check.strided(argument, int64_t(i), info);
      check.device(argument, int64_t(i), info);
      check.dense(argument, int64_t(i), info);
      const int64_t size = info.numel * int64_t(aoti_torch_dtype_element_size(info.dtype));
      overlap.add(info.data, size, argument, int64_t(i), cleared);
      if (cleared) tensors.push_back({info.data, size});
    }
  };
  add("states", states, true);
  add("steps", steps, !keep_step);
  overlap.check(kOp);
  if (!tensors.empty()) backend::clear_list(kOp, tensors, device.index);
}

struct ListOps {
  ListOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def("extrapolate_(Tensor(a!)[] params, Tensor(b!)[] previous, *, float alpha, bool roll=True) -> ()");
      definitions.def("reset_state_(Tensor(a!)[] states, Tensor(b!)[] steps, *, bool keep_step=False) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("extrapolate_", extrapolate);
    kernels.impl("reset_state_", reset_state);
  }
};

const ListOps list_ops;

}  // namespace
}  // namespace momentum::ops
