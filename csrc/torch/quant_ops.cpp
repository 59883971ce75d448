// Quantising and dequantising one tensor.
#include <torch/csrc/stable/library.h>

#include "core/conversion.h"
#include "torch/backend.h"
#include "torch/checks.h"
#include "torch/overlap.h"
#include "torch/stack.h"

namespace momentum::ops {
namespace {

using torch::stable::detail::StableLibrary;

constexpr double kAnySeed = 9.3e18;

struct Tensors {
  TensorInfo values, codes, scales;
};

// What both ops check; `reads_values` says which side is written.
Conversion describe_conversion(const char* op, const Tensors& t, int64_t map, int64_t block, int64_t scaling,
                               bool reads_values) {
  const Checker check(op, {t.values.device_type, t.values.device_index});
  const char* values = reads_values ? "input" : "output";
  check.strided(values, -1, t.values);
  Conversion c;
  c.quantise = reads_values;
  c.dtype = check.dtype(values, -1, t.values, false);
  if (!is_contiguous(t.values)) {
    refuse(op, values, " has strides ", strides_text(t.values), ", expected a contiguous tensor");
  }
  check.range("map", -1, double(map), 1, formats::kCodeMaps - 1, false);
  if (!is_block_size(block)) refuse(op, "block is ", block, ", expected 64, 128 or 256 elements");
  c.format.map = formats::CodeMap(map);
  c.format.block = int(block);
  check.range("scaling", -1, double(scaling), 0, 2, false);
  c.format.scaling = Scaling(scaling);
  c.rows = t.values.dim > 0 ? t.values.sizes[0] : 1;
  c.cols = columns(t.values);
  c.values = t.values.data;
  c.numel = t.values.numel;
  c.codes = check.bytes("codes", -1, t.codes, formats::code_bytes(c.format.map, c.numel));
  check.strided("scales", -1, t.scales);
  c.format.scale_dtype = check.dtype("scales", -1, t.scales, false);
  c.scales = check.vector("scales", -1, t.scales, c.format.scale_dtype, scale_count(c.format, c.numel, c.rows, c.cols));
  if (c.format.scaling != Scaling::kBlock && c.format.scale_dtype != DType::kFloat32) {
    refuse(op, "scales has dtype ", name(c.format.scale_dtype), ", expected float32: scales of rows and columns");
  }
  OverlapCheck overlap;
  overlap.add(c.values, c.numel * item_size(c.dtype), values, -1, !reads_values);
  overlap.add(c.codes, t.codes.numel, "codes", -1, reads_values);
  overlap.add(c.scales, t.scales.numel * item_size(c.format.scale_dtype), "scales", -1, reads_values);
  overlap.check(op);
  return c;
}

// quantize_(Tensor input, Tensor(a!) codes, Tensor(b!) scales, *, int map, int block, int scaling, int rounding, int seed, int
// step)
void quantize(StableIValue* stack_values, uint64_t, uint64_t) {
  constexpr const char* kOp = "quantize_";
  Stack stack(stack_values);
  const TensorHandle input = stack.tensor(), codes = stack.tensor(), scales = stack.tensor();
  const int64_t map = stack.integer(), block = stack.integer(), scaling = stack.integer(), rounding = stack.integer();
  const int64_t seed = stack.integer(), step = stack.integer();
  const Tensors tensors{describe(input.get()), describe(codes.get()), describe(scales.get())};
  Conversion c = describe_conversion(kOp, tensors, map, block, scaling, true);
  const Checker check(kOp, {tensors.values.device_type, tensors.values.device_index});
  check.range("rounding", -1, double(rounding), 0, 1, false);
  check.range("seed", -1, double(seed), -kAnySeed, kAnySeed, false);
  check.range("step", -1, double(step), 0, 4294967295.0, false);
  c.format.stochastic = rounding == 1;
  c.seed = uint64_t(seed);
  c.step = uint32_t(step);
  backend::run_conversion(kOp, c, tensors.values.device_index);
}

// dequantize_(Tensor codes, Tensor scales, Tensor(a!) output, *, int map, int block, int scaling)
void dequantize(StableIValue* stack_values, uint64_t, uint64_t) {
  constexpr const char* kOp = "dequantize_";
  Stack stack(stack_values);
  const TensorHandle codes = stack.tensor(), scales = stack.tensor(), output = stack.tensor();
  const int64_t map = stack.integer(), block = stack.integer(), scaling = stack.integer();
  const Tensors tensors{describe(output.get()), describe(codes.get()), describe(scales.get())};
  backend::run_conversion(kOp, describe_conversion(kOp, tensors, map, block, scaling, false), tensors.values.device_index);
}

struct QuantOps {
  QuantOps() {
    if constexpr (backend::kDefinesSchemas) {
      static StableLibrary definitions(StableLibrary::Kind::FRAGMENT, backend::kNamespace, nullptr, __FILE__, __LINE__);
      definitions.def(
          "quantize_(Tensor input, Tensor(a!) codes, Tensor(b!) scales, *, int map, int block, int scaling=0, int rounding=0, "
          "int "
          "seed=0, int step=0) -> ()");
      definitions.def(
          "dequantize_(Tensor codes, Tensor scales, Tensor(a!) output, *, int map, int block, int scaling=0) -> ()");
    }
    static StableLibrary kernels(StableLibrary::Kind::IMPL, backend::kNamespace, backend::kDispatchKey, __FILE__, __LINE__);
    kernels.impl("quantize_", quantize);
    kernels.impl("dequantize_", dequantize);
  }
};

const QuantOps quant_ops;

}  // namespace
}  // namespace momentum::ops
