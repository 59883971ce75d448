// Ops that are no optimizer step: plain reductions, and the random words that stochastic rounding uses.
#include <torch/csrc/stable/library.h>

#include "core/reductions.h"
#include "core/statistic.h"
#include "torch/backend.h"
#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stack.h"

namespace momentum::ops {
namespace {

using rules::Statistic;
using torch::stable::detail::StableLibrary;

// segment_reduce(Tensor[] xs, Tensor[] ys, Tensor(a!) out, *, int kind, int axis=-1)
void segment_reduce(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const TensorList xs = stack.tensors(), ys = stack.tensors();
  const TensorHandle out = stack.tensor();
  const int64_t operand = stack.integer(), axis = stack.integer();

  const TensorInfo target = describe(out.get());
  const Checker check(Statistic::kName, {target.device_type, target.device_index});
  check.range("kind", -1, double(operand), 0, 4, false);
  check.range("axis", -1, double(axis), -1, 1, false);
  const bool paired = operand == Statistic::kDot || operand == Statistic::kAgreement;
  if (paired) {
    check.length("ys", ys.size(), xs.size(), "one per x");
  } else {
    check.length("ys", ys.size(), 0, "only kinds 2 and 4, dot product and agreement, read it");
  }

  StepCall call;
  OverlapCheck overlap;
  call.tensors.resize(xs.size(), TensorArgs{});
  for (size_t i = 0; i < xs.size(); ++i) {
    TensorArgs& t = call.tensors[i];
    const auto index = int64_t(i);
    const TensorInfo x = describe(xs[i]);
    check.strided("xs", index, x);
    check.device("xs", index, x);
    t.param_dtype = check.dtype("xs", index, x, true);
    if (axis < 0 ? !is_dense(x) : !is_contiguous(x)) {
      refuse(Statistic::kName, "xs[", i, "] has strides ", strides_text(x), ", expected a ", axis < 0 ? "dense" : "contiguous",
             " tensor");
    }
    t.param = x.data;
    t.grad = x.data;
    t.grad_dtype = t.param_dtype;
    t.numel = x.numel;
    t.rows = x.dim > 0 ? x.sizes[0] : 1;
    t.cols = columns(x);
    overlap.add(x.data, x.numel * item_size(t.param_dtype), "xs", index, false);
    if (!paired) continue;
    const TensorInfo y = describe(ys[i]);
    check.strided("ys", index, y);
    check.device("ys", index, y);
    check.like_param("ys", index, y, x);
    t.grad_dtype = check.dtype("ys", index, y, t.param_dtype == DType::kFloat64);
    t.grad = y.data;
    overlap.add(y.data, y.numel * item_size(t.grad_dtype), "ys", index, false);
  }
  CommonArgs& common = call.common;
  common.hypers[Statistic::kOperand] = double(operand);
  common.hypers[Statistic::kAxis] = double(axis);
  const int64_t segments = segment_total(call.tensors, Axis(axis));
  common.totals = static_cast<double*>(check.vector("out", -1, target, DType::kFloat64, segments));
  overlap.add(common.totals, segments * 8, "out", -1, true);
  overlap.check(Statistic::kName);
  call.stage = 0;
  if (!call.tensors.empty()) backend::run<Statistic>(Statistic::kName, call, target.device_index);
}

// philox(int seed, int step, int offset, Tensor(a!) out)
void philox(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const int64_t seed = stack.integer(), step = stack.integer(), offset = stack.integer();
  const TensorHandle out = stack.tensor();
  const TensorInfo info = describe(out.get());
  const Checker check("philox", {info.device_type, info.device_index});
  check.strided("out", -1, info);
  if (info.dtype != aoti_torch_dtype_int32() || !is_contiguous(info)) {
    refuse("philox", "out has dtype ", dtype_name(info), " and shape ", shape_text(info), ", expected contiguous int32");
  }
  check.range("offset", -1, double(offset), 0, 9e18, false);
  backend::run_philox(uint64_t(seed), uint32_t(step), offset, static_cast<uint32_t*>(info.data), info.numel, info.device_index);
}

struct PlainOps {
  PlainOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def("segment_reduce(Tensor[] xs, Tensor[] ys, Tensor(a!) out, *, int kind, int axis=-1) -> ()");
      definitions.def("philox(int seed, int step, int offset, Tensor(a!) out) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("segment_reduce", segment_reduce);
    kernels.impl("philox", philox);
  }
};

const PlainOps plain_ops;

}  // namespace
}  // namespace momentum::ops
