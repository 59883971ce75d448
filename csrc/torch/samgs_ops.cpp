// SAM-GS: what to do with the gradients of several tasks, and doing it.
#include <torch/csrc/stable/library.h>

#include "torch/list_checks.h"
#include "torch/samgs_backend.h"

namespace momentum::ops {
namespace {

using torch::stable::detail::StableLibrary;

void check_tasks(const Checker& check, int64_t tasks) { check.range("tasks", -1, double(tasks), 2, samgs::kMostTasks, false); }

// samgs_weights_(Tensor squares, Tensor(a!) state, Tensor(b!) weights, *, int tasks, float beta1, float beta2, float gamma)
void samgs_weights(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "samgs_weights_";
  Stack stack(values);
  const TensorHandle squares = stack.tensor(), state = stack.tensor(), weights = stack.tensor();
  SamgsDecision d;
  d.tasks = stack.integer();
  d.beta1 = stack.number();
  d.beta2 = stack.number();
  d.gamma = stack.number();
  const TensorInfo sums = describe(squares.get());
  const Checker check(kOp, {sums.device_type, sums.device_index});
  check_tasks(check, d.tasks);
  check.range("beta1", -1, d.beta1, 0, 1, true);
  check.range("beta2", -1, d.beta2, 0, 1, true);
  check.range("gamma", -1, d.gamma, 0, 1e300, false);
  if (sums.numel % d.tasks != 0) {
    refuse(kOp, "squares has shape ", shape_text(sums), ", expected as many numbers for each of ", d.tasks, " tasks");
  }
  d.tensors = sums.numel / d.tasks;
  d.squares = static_cast<const double*>(check.vector("squares", -1, sums, DType::kFloat64, sums.numel));
  d.state = static_cast<double*>(check.vector("state", -1, describe(state.get()), DType::kFloat64, 2));
  d.weights = static_cast<double*>(check.vector("weights", -1, describe(weights.get()), DType::kFloat64, d.tasks + 2));
  OverlapCheck overlap;
  overlap.add(d.squares, sums.numel * 8, "squares", -1, false);
  overlap.add(d.state, 16, "state", -1, true);
  overlap.add(d.weights, (d.tasks + 2) * 8, "weights", -1, true);
  overlap.check(kOp);
  backend::decide_samgs(kOp, d, sums.device_index);
}

// samgs_(Tensor(a!)[] outs, Tensor(b!)[] exp_avgs, Tensor[] grads, Tensor weights, *, int tasks, float beta1)
void samgs_combine(StableIValue* values, uint64_t, uint64_t) {
  constexpr const char* kOp = "samgs_";
  Stack stack(values);
  const TensorList outs = stack.tensors(), exp_avgs = stack.tensors(), grads = stack.tensors();
  const TensorHandle weights = stack.tensor();
  const int64_t tasks = stack.integer();
  SamgsCall call;
  call.beta1 = stack.number();
  const Device device = device_of(outs);
  const Checker check(kOp, device);
  check_tasks(check, tasks);
  check.range("beta1", -1, call.beta1, 0, 1, true);
  const size_t count = outs.size();
  check.length("exp_avgs", exp_avgs.size(), count * size_t(tasks), "one per task and out, task by task");
  check.length("grads", grads.size(), count * size_t(tasks), "one per task and out, task by task");
  call.tasks = int(tasks);
  call.weights = static_cast<const double*>(check.vector("weights", -1, describe(weights.get()), DType::kFloat64, tasks + 2));
  OverlapCheck overlap;
  overlap.add(call.weights, (tasks + 2) * 8, "weights", -1, false);
  call.tensors.resize(count);
  std::vector<void*> averages(count * size_t(tasks));
  std::vector<const void*> gradients(count * size_t(tasks));
  for (size_t i = 0; i < count; ++i) {
    SamgsTensor& t = call.tensors[i];
    const TensorInfo out = describe(outs[i]);
    check.strided("outs", int64_t(i), out);
    check.device("outs", int64_t(i), out);
    check.dense("outs", int64_t(i), out);
    t.out = out.data;
    t.out_dtype = check.dtype("outs", int64_t(i), out, true);
    t.numel = out.numel;
    overlap.add(t.out, t.numel * item_size(t.out_dtype), "outs", int64_t(i), true);
    const bool wide = t.out_dtype == DType::kFloat64;
    const DType average = wide ? DType::kFloat64 : DType::kFloat32;
    for (size_t task = 0; task < size_t(tasks); ++task) {
      const size_t place = task * count + i;
      const auto index = int64_t(place);
      const auto examine = [&](const char* argument, const TensorList& list, bool written) {
        const TensorInfo info = describe(list[place]);
        check.strided(argument, index, info);
        check.device(argument, index, info);
        if (!same_shape(info, out) || (out.numel != 0 && !same_strides(info, out))) {
          refuse(kOp, label(argument, index), " has shape ", shape_text(info), " and strides ", strides_text(info),
                 ", expected ", shape_text(out), " and ", strides_text(out), " like outs[", i, "]");
        }
        const DType dtype = check.dtype(argument, index, info, wide);
        overlap.add(info.data, info.numel * item_size(dtype), argument, index, written);
        return std::pair(info.data, dtype);
      };
      const auto [average_data, average_dtype] = examine("exp_avgs", exp_avgs, true);
      const auto [grad_data, grad_dtype] = examine("grads", grads, false);
      if (average_dtype != average) {
        refuse(kOp, label("exp_avgs", index), " has dtype ", name(average_dtype), ", expected ", name(average));
      }
      if (task == 0) t.grad_dtype = grad_dtype;
      if (grad_dtype != t.grad_dtype) {
        refuse(kOp, label("grads", index), " has dtype ", name(grad_dtype), ", expected ", name(t.grad_dtype), " like grads[",
               i, "], the first task's");
      }
      averages[i * size_t(tasks) + task] = average_data;
      gradients[i * size_t(tasks) + task] = grad_data;
    }
    t.exp_avgs = averages.data() + i * size_t(tasks);
    t.grads = gradients.data() + i * size_t(tasks);
  }
  overlap.check(kOp);
  if (count > 0) backend::run_samgs(kOp, call, device.index);
}

struct SamgsOps {
  SamgsOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(
          "samgs_weights_(Tensor squares, Tensor(a!) state, Tensor(b!) weights, *, int tasks, float beta1, float beta2, "
          "float gamma) -> ()");
      definitions.def(
          "samgs_(Tensor(a!)[] outs, Tensor(b!)[] exp_avgs, Tensor[] grads, Tensor weights, *, int tasks, float beta1) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("samgs_weights_", samgs_weights);
    kernels.impl("samgs_", samgs_combine);
  }
};

const SamgsOps samgs_ops;

}  // namespace
}  // namespace momentum::ops
