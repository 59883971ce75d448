// Quantised states of a step: codes, and what they are scaled by.
#include "torch/step_unpacker.h"

namespace momentum::ops {

using formats::CodeMap;

// Four numbers per state: the code map, elements per block, how codes are rounded, and what has a scale. Scales come in one
// list, those of the first quantised state before those of the next.
void StepUnpacker::state_formats() {
  const char* op = check_.op();
  if (a_.state_formats.empty()) return check_.length("scales", a_.scales.size(), 0, "state_formats names no quantised state");
  check_.length("state_formats", a_.state_formats.size(), size_t(4 * rule_.state_count), "none, or four per state");
  size_t quantised = 0;
  for (int k = 0; k < rule_.state_count; ++k) {
    const int64_t map = a_.state_formats[4 * k], block = a_.state_formats[4 * k + 1], rounding = a_.state_formats[4 * k + 2];
    const int64_t scaling = a_.state_formats[4 * k + 3];
    check_.range("state_formats", 4 * k, double(map), 0, formats::kCodeMaps - 1, false);
    if (map == 0) continue;
    if (!has_state(k)) {
      refuse(op, "state_formats[", 4 * k, "] is ", map, ", expected 0: ", rule_.states[k].name, " is not given");
    }
    if (!is_block_size(block)) {
      refuse(op, "state_formats[", 4 * k + 1, "] is ", block, ", expected a block of 64, 128 or 256 elements");
    }
    check_.range("state_formats", 4 * k + 2, double(rounding), 0, 1, false);
    check_.range("state_formats", 4 * k + 3, double(scaling), 0, 2, false);
    StateFormat& format = call_.common.state_formats[k];
    format.map = CodeMap(map);
    format.block = int(block);
    format.stochastic = rounding == 1;
    format.scaling = Scaling(scaling);
    first_scale_[k] = quantised;
    quantised += count_;
  }
  check_.length("scales", a_.scales.size(), quantised, "one per param and quantised state");
  for (int k = 0; k < rule_.state_count; ++k) set_scale_dtype(k);
}

// All scales of a state have one dtype: that of the first that is not empty.
void StepUnpacker::set_scale_dtype(int k) {
  StateFormat& format = call_.common.state_formats[k];
  if (format.map == CodeMap::kNone) return;
  for (size_t i = first_scale_[k]; i < first_scale_[k] + count_; ++i) {
    const TensorInfo& info = a_.scales[i];
    if (info.numel == 0) continue;
    format.scale_dtype = check_.dtype("scales", int64_t(i), info, false);
    if (format.scaling != Scaling::kBlock && format.scale_dtype != DType::kFloat32) {
      refuse(check_.op(), "scales[", i, "] has dtype ", dtype_name(info), ", expected float32: scales of rows and columns");
    }
    return;
  }
}

void StepUnpacker::quantised_state(int k, size_t i, const TensorInfo& codes, const TensorInfo& param, TensorArgs& t,
                                   OverlapCheck& overlap) const {
  const auto index = int64_t(i), place = int64_t(first_scale_[k] + i);
  const char* argument = rule_.states[k].name;
  const StateFormat& format = call_.common.state_formats[k];
  if (format.map == CodeMap::kNone) {
    refuse(check_.op(), argument, "[", i, "] has dtype uint8, expected a floating point dtype: state_formats names no format",
           " for this state");
  }
  if (t.param_dtype == DType::kFloat64) {
    refuse(check_.op(), argument, "[", i, "] has dtype uint8, expected float64: params[", i, "] is float64, whose states are ",
           "not quantised");
  }
  t.states[k] = check_.bytes(argument, index, codes, formats::code_bytes(format.map, param.numel));
  t.state_dtypes[k] = DType::kCodes;
  const int64_t blocks = scale_count(format, t.numel, t.rows, t.cols);
  if (has_matrix_scales(format, t.rows, t.cols) && !is_contiguous(param)) {
    refuse(check_.op(), "params[", i, "] has strides ", strides_text(param), ", expected a contiguous tensor (", argument,
           " has a scale for each row and column)");
  }
  t.scales[k] = check_.vector("scales", place, a_.scales[size_t(place)], format.scale_dtype, blocks);
  overlap.add(t.states[k], codes.numel, argument, index, true);
  overlap.add(t.scales[k], blocks * item_size(format.scale_dtype), "scales", place, true);
}

// Where the formats of a call do not apply to one of its states, its scales are an empty tensor.
void StepUnpacker::no_scales(int k, size_t i) const {
  if (call_.common.state_formats[k].map == CodeMap::kNone) return;
  const size_t place = first_scale_[k] + i;
  const TensorInfo& info = a_.scales[place];
  if (info.numel == 0) return;
  refuse(check_.op(), "scales[", place, "] has shape ", shape_text(info), ", expected an empty tensor: ", rule_.states[k].name,
         "[", i, "] is not quantised");
}

}  // namespace momentum::ops
