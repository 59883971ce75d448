// Loss and gradient of StableMax cross-entropy, per row of a matrix of logits.
#include <torch/csrc/stable/library.h>

#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stablemax_backend.h"
#include "torch/stack.h"

namespace momentum::ops {
namespace {

using torch::stable::detail::StableLibrary;

struct Tensors {
  TensorInfo logits, target, losses, rest;
};

// What both ops check. `losses` are the losses, or the gradient by them.
StableMaxCall describe_call(const char* op, const Tensors& t, const char* losses, int64_t ignore_index, OverlapCheck& overlap,
                            bool writes_losses) {
  const Checker check(op, {t.logits.device_type, t.logits.device_index});
  check.strided("logits", -1, t.logits);
  StableMaxCall call;
  call.dtype = check.dtype("logits", -1, t.logits, true);
  if (t.logits.dim != 2 || !is_contiguous(t.logits)) {
    refuse(op, "logits has shape ", shape_text(t.logits), ", expected contiguous [rows, classes]");
  }
  call.rows = t.logits.sizes[0];
  call.classes = t.logits.sizes[1];
  call.logits = t.logits.data;
  check.strided("target", -1, t.target);
  check.device("target", -1, t.target);
  call.wide_target = t.target.dtype == aoti_torch_dtype_int64();
  if (!call.wide_target && t.target.dtype != aoti_torch_dtype_int32()) {
    refuse(op, "target has dtype ", dtype_name(t.target), ", expected int64 or int32");
  }
  if (t.target.dim != 1 || t.target.numel != call.rows || !is_contiguous(t.target)) {
    refuse(op, "target has shape ", shape_text(t.target), ", expected ", call.rows, " contiguous labels, one per row");
  }
  call.target = t.target.data;
  const DType arithmetic = call.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  call.losses = check.vector(losses, -1, t.losses, arithmetic, call.rows);
  call.rest = static_cast<double*>(check.vector("rest", -1, t.rest, DType::kFloat64, call.rows));
  call.ignore_index = ignore_index;
  if constexpr (backend::kOnCpu) {
    for (int64_t row = 0; row < call.rows; ++row) {
      if (stablemax::target_of(call, row) != stablemax::kInvalid) continue;
      const int64_t label =
          call.wide_target ? static_cast<const int64_t*>(call.target)[row] : static_cast<const int32_t*>(call.target)[row];
      refuse(op, "target[", row, "] is ", label, ", expected a class in [0, ", call.classes,
             ") or ignore_index = ", ignore_index);
    }
  }
  overlap.add(call.logits, t.logits.numel * item_size(call.dtype), "logits", -1, false);
  overlap.add(call.target, call.rows * (call.wide_target ? 8 : 4), "target", -1, false);
  overlap.add(call.losses, call.rows * item_size(arithmetic), losses, -1, writes_losses);
  overlap.add(call.rest, call.rows * 8, "rest", -1, writes_losses);
  return call;
}

// stablemax_loss_(Tensor logits, Tensor target, Tensor(a!) losses, Tensor(b!) rest, *, int ignore_index)
void stablemax_loss(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "stablemax_loss_";
  Stack stack(values);
  const TensorHandle logits = stack.tensor(), target = stack.tensor(), losses = stack.tensor(), rest = stack.tensor();
  const int64_t ignore_index = stack.integer();
  const Tensors t{describe(logits.get()), describe(target.get()), describe(losses.get()), describe(rest.get())};
  OverlapCheck overlap;
  const StableMaxCall call = describe_call(kOp, t, "losses", ignore_index, overlap, true);
  overlap.check(kOp);
  backend::run_stablemax_loss(kOp, call, t.logits.device_index);
}

// stablemax_grad_(Tensor logits, Tensor target, Tensor grad_losses, Tensor rest, Tensor(a!) grad, *, int ignore_index)
void stablemax_grad(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "stablemax_grad_";
  Stack stack(values);
  const TensorHandle logits = stack.tensor(), target = stack.tensor(), grad_losses = stack.tensor(), rest = stack.tensor(),
                     grad = stack.tensor();
  const int64_t ignore_index = stack.integer();
  const Tensors t{describe(logits.get()), describe(target.get()), describe(grad_losses.get()), describe(rest.get())};
  OverlapCheck overlap;
  StableMaxCall call = describe_call(kOp, t, "grad_losses", ignore_index, overlap, false);
  const Checker check(kOp, {t.logits.device_type, t.logits.device_index});
  call.grad = check.vector("grad", -1, describe(grad.get()), call.dtype, t.logits.numel);
  overlap.add(call.grad, t.logits.numel * item_size(call.dtype), "grad", -1, true);
  overlap.check(kOp);
  backend::run_stablemax_grad(kOp, call, t.logits.device_index);
}

struct StableMaxOps {
  StableMaxOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(
          "stablemax_loss_(Tensor logits, Tensor target, Tensor(a!) losses, Tensor(b!) rest, *, int ignore_index=-100) -> ()");
      definitions.def(
          "stablemax_grad_(Tensor logits, Tensor target, Tensor grad_losses, Tensor rest, Tensor(a!) grad, *, "
          "int ignore_index=-100) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("stablemax_loss_", stablemax_loss);
    kernels.impl("stablemax_grad_", stablemax_grad);
  }
};

const StableMaxOps stablemax_ops;

}  // namespace
}  // namespace momentum::ops
