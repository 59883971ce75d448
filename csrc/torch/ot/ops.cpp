// The op of entropic optimal transport: schema, checks, and the description of the batch that a backend receives.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "torch/checks.h"
#include "torch/ot/backend.h"
#include "torch/overlap.h"
#include "torch/stack.h"

namespace momentum::ops {
namespace {

using ot::CostKind;
using torch::stable::detail::StableLibrary;

constexpr const char* kOp = "ot_solve";
constexpr const char* kSchema =
    "ot_solve(Tensor cost, Tensor x, Tensor y, Tensor a, Tensor b, Tensor(a!) f, Tensor(b!) g, Tensor(c!) numbers, "
    "Tensor(d!) counts, *, float[] reg, int cost_kind=0, int method=2, float tol=1e-9, int max_sweeps=10000, "
    "int newton_limit=-1) -> ()";

// A contiguous float32 or float64 tensor [count or 1, rows, columns]; count 1 stands for one that all problems share.
bool cost_tensor(const Checker& check, const char* argument, const TensorInfo& info, int64_t count, int64_t rows,
                 int64_t columns, bool* is_double) {
  check.strided(argument, -1, info);
  check.device(argument, -1, info);
  const std::optional<DType> dtype = storage_dtype(info);
  if (!dtype || item_size(*dtype) < 4) {
    refuse(kOp, argument, " has dtype ", dtype_name(info), ", expected float32 or float64");
  }
  const bool fits = info.dim == 3 && (info.sizes[0] == count || info.sizes[0] == 1) && info.sizes[1] == rows &&
                    info.sizes[2] == columns && is_contiguous(info);
  if (!fits) {
    refuse(kOp, argument, " has shape ", shape_text(info), ", expected contiguous [", count, " or 1, ", rows, ", ", columns,
           "]");
  }
  *is_double = *dtype == DType::kFloat64;
  return info.sizes[0] == 1 && count != 1;
}

void matrix_of(const Checker& check, const TensorInfo& a, const char* argument) {
  if (a.dim != 2 || a.sizes[1] == 0) refuse(kOp, argument, " has shape ", shape_text(a), ", expected [problems, size > 0]");
  check.strided(argument, -1, a);
}

void ot_solve(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const TensorHandle cost = stack.tensor(), x = stack.tensor(), y = stack.tensor(), a = stack.tensor(), b = stack.tensor(),
                     f = stack.tensor(), g = stack.tensor(), numbers = stack.tensor(), counts = stack.tensor();
  const std::vector<double> reg = stack.floats();
  const int64_t kind = stack.integer(), method = stack.integer();
  const double tol = stack.number();
  const int64_t max_sweeps = stack.integer(), newton_limit = stack.integer();

  const TensorInfo rows = describe(a.get()), columns = describe(b.get());
  const Checker check(kOp, {rows.device_type, rows.device_index});
  matrix_of(check, rows, "a");
  matrix_of(check, columns, "b");
  ot::Batch batch;
  batch.count = rows.sizes[0];
  ot::Cost& c = batch.cost;
  c.n = rows.sizes[1];
  c.m = columns.sizes[1];
  batch.a = static_cast<const double*>(check.vector("a", -1, rows, DType::kFloat64, batch.count * c.n));
  batch.b = static_cast<const double*>(check.vector("b", -1, columns, DType::kFloat64, batch.count * c.m));

  check.range("cost_kind", -1, double(kind), 0, 2, false);
  check.range("method", -1, double(method), 0, 2, false);
  check.range("tol", -1, tol, 0, 1, false);
  check.range("max_sweeps", -1, double(max_sweeps), 1, 2e9, false);
  check.range("newton_limit", -1, double(newton_limit), -1, 2e9, false);
  check.length("reg", reg.size(), size_t(batch.count), "one per problem");
  for (size_t i = 0; i < reg.size(); ++i) {
    if (!(reg[i] > 0 && reg[i] < 1e300)) refuse(kOp, "reg[", i, "] is ", reg[i], ", expected a finite number > 0");
  }

  OverlapCheck overlap;
  const auto reads = [&](const TensorInfo& info, const char* argument) {
    overlap.add(info.data, info.numel * (c.is_double ? 8 : 4), argument, -1, false);
  };
  c.kind = CostKind(kind);
  if (c.kind == CostKind::kMatrix) {
    const TensorInfo matrix = describe(cost.get());
    c.shared = cost_tensor(check, "cost", matrix, batch.count, c.n, c.m, &c.is_double);
    c.matrix = matrix.data;
    reads(matrix, "cost");
  } else {
    const TensorInfo from = describe(x.get()), to = describe(y.get());
    c.d = from.dim == 3 ? from.sizes[2] : 0;
    bool to_double = false;
    c.shared = cost_tensor(check, "x", from, batch.count, c.n, c.d, &c.is_double);
    if (cost_tensor(check, "y", to, batch.count, c.m, c.d, &to_double) != c.shared || to_double != c.is_double) {
      refuse(kOp, "y has shape ", shape_text(to), " and dtype ", dtype_name(to),
             ", expected as many problems and the dtype of x");
    }
    c.x = from.data;
    c.y = to.data;
    reads(from, "x");
    reads(to, "y");
  }
  overlap.add(batch.a, batch.count * c.n * 8, "a", -1, false);
  overlap.add(batch.b, batch.count * c.m * 8, "b", -1, false);
  const auto writes = [&](const TensorHandle& tensor, const char* argument, int64_t size) {
    void* data = check.vector(argument, -1, describe(tensor.get()), DType::kFloat64, size);
    overlap.add(data, size * 8, argument, -1, true);
    return static_cast<double*>(data);
  };
  batch.f = writes(f, "f", batch.count * c.n);
  batch.g = writes(g, "g", batch.count * c.m);
  batch.numbers = writes(numbers, "numbers", batch.count * ot::kNumbers);
  const TensorInfo integers = describe(counts.get());
  check.strided("counts", -1, integers);
  check.device("counts", -1, integers);
  if (integers.dtype != aoti_torch_dtype_int32() || integers.numel != batch.count * ot::kCounts || !is_contiguous(integers)) {
    refuse(kOp, "counts has dtype ", dtype_name(integers), " and shape ", shape_text(integers), ", expected ",
           batch.count * ot::kCounts, " contiguous int32");
  }
  batch.counts = static_cast<int32_t*>(integers.data);
  overlap.add(batch.counts, integers.numel * 4, "counts", -1, true);
  overlap.check(kOp);

  batch.reg = reg.data();
  batch.options.tol = tol;
  batch.options.max_sweeps = max_sweeps;
  batch.options.method = ot::Method(method);
  batch.options.newton_limit = newton_limit;
  if (batch.count > 0) backend::solve_transport(kOp, batch, rows.device_index);
}

struct TransportOps {
  TransportOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(kSchema);
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl(kOp, ot_solve);
  }
};

const TransportOps transport_ops;

}  // namespace
}  // namespace momentum::ops
