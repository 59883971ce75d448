// Zeroth-order steps: moving parameters along noise that is drawn again instead of kept.
#include <torch/csrc/stable/library.h>

#include <cmath>

#include "torch/list_checks.h"
#include "torch/lists_backend.h"

namespace momentum::ops {
namespace {

using lists::Move;
using torch::stable::detail::StableLibrary;

constexpr double kAnySeed = 9.3e18;

// Checks the lists of both ops and fills the call; `op` is complete but for `draw`.
void fill(const Checker& check, const TensorList& params, const TensorList& originals, const TensorList& noise, int64_t seed,
          int64_t step, lists::Call<Move>& call, OverlapCheck& overlap) {
  check.range("seed", -1, double(seed), -kAnySeed, kAnySeed, false);
  check.range("step", -1, double(step), 0, 4294967295.0, false);
  call.op.seed = uint64_t(seed);
  call.op.step = uint32_t(step);
  call.op.draw = noise.size() == 0;
  call.tensors.resize(params.size());
  add_stream(check, "params", params, params, 0, true, call.tensors, overlap);
  add_stream(check, "originals", originals, params, 1, call.op.save, call.tensors, overlap);
  for (size_t i = 0; i < params.size(); ++i) {
    lists::Tensors& t = call.tensors[i];
    if (t.dtypes[1] != t.dtypes[0]) {
      refuse(check.op(), label("originals", int64_t(i)), " has dtype ", name(t.dtypes[1]), ", expected ", name(t.dtypes[0]),
             " like params[", i, "]");
    }
    t.streams[2] = t.streams[1];  // not touched where noise is drawn
    t.dtypes[2] = t.dtypes[1];
  }
  if (!call.op.draw) add_stream(check, "noise", noise, params, 2, false, call.tensors, overlap);
}

// zo_perturb_(Tensor(a!)[] params, Tensor(b!)[] originals, Tensor[] noise, *, float size, bool save, int seed=0, int step=0)
void zo_perturb(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "zo_perturb_";
  Stack stack(values);
  const TensorList params = stack.tensors(), originals = stack.tensors(), noise = stack.tensors();
  lists::Call<Move> call;
  call.op.size = stack.number();
  call.op.save = stack.boolean();
  const int64_t seed = stack.integer(), step = stack.integer();
  const Device device = device_of(params);
  const Checker check(kOp, device);
  OverlapCheck overlap;
  fill(check, params, originals, noise, seed, step, call, overlap);
  check.range("size", -1, call.op.size, -1e300, 1e300, false);
  overlap.check(kOp);
  if (params.size() > 0) backend::run_list(kOp, call, device.index);
}

// zo_update_(Tensor(a!)[] params, Tensor[] originals, Tensor[] noise, Tensor losses, *, float size, float lr, float clip,
// float floor, int seed=0, int step=0)
void zo_update(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "zo_update_";
  Stack stack(values);
  const TensorList params = stack.tensors(), originals = stack.tensors(), noise = stack.tensors();
  const TensorHandle losses = stack.tensor();
  lists::Call<Move> call;
  call.op.size = stack.number();
  call.op.lr = stack.number();
  call.op.clip = stack.number();
  call.op.floor = stack.number();
  const int64_t seed = stack.integer(), step = stack.integer();
  const Device device = device_of(params);
  const Checker check(kOp, device);
  OverlapCheck overlap;
  fill(check, params, originals, noise, seed, step, call, overlap);
  check.range("size", -1, call.op.size, 1e-300, 1e300, false);
  check.range("lr", -1, call.op.lr, 0, 1e300, false);
  if (!(call.op.clip > 0)) refuse(kOp, "clip is ", call.op.clip, ", expected a number > 0, or infinity");
  if (!(call.op.floor < INFINITY)) refuse(kOp, "floor is ", call.op.floor, ", expected a finite number, or -infinity");
  const TensorInfo info = describe(losses.get());
  call.op.wide_losses = storage_dtype(info) == DType::kFloat64;
  call.op.losses = check.vector("losses", -1, info, call.op.wide_losses ? DType::kFloat64 : DType::kFloat32, 2);
  overlap.add(call.op.losses, call.op.wide_losses ? 16 : 8, "losses", -1, false);
  overlap.check(kOp);
  if (params.size() > 0) backend::run_list(kOp, call, device.index);
}

struct ZerothOrderOps {
  ZerothOrderOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(
          "zo_perturb_(Tensor(a!)[] params, Tensor(b!)[] originals, Tensor[] noise, *, float size, bool save, int seed=0, "
          "int step=0) -> ()");
      definitions.def(
          "zo_update_(Tensor(a!)[] params, Tensor[] originals, Tensor[] noise, Tensor losses, *, float size, float lr, "
          "float clip, float floor, int seed=0, int step=0) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("zo_perturb_", zo_perturb);
    kernels.impl("zo_update_", zo_update);
  }
};

const ZerothOrderOps zeroth_order_ops;

}  // namespace
}  // namespace momentum::ops
