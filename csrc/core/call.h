// One call of an op, free of torch and Python: what the checks hand to a driver.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "core/formats/blocks.h"
#include "core/frame.h"
#include "core/left_as_is.h"
#include "core/rule.h"

namespace momentum {

// One tensor of the list with everything that belongs to it. Null pointers are absent streams.
struct TensorArgs {
  void* param = nullptr;
  const void* grad = nullptr;
  void* states[kMaxStates] = {};
  void* scales[kMaxStates] = {};  // of quantised states
  void* residual = nullptr;       // Kahan compensation or master copy
  void* ema = nullptr;
  float* scalars = nullptr;
  DType param_dtype = DType::kFloat32;
  DType grad_dtype = DType::kFloat32;
  DType state_dtypes[kMaxStates] = {};
  DType residual_dtype = DType::kFloat32;
  DType ema_dtype = DType::kFloat32;
  int64_t numel = 0;
  int64_t rows = 1, cols = 0;  // dim 0 x the rest; see kMatrices
  double lr = 0, weight_decay = 0;
  uint64_t seed = 0;
  // Global index of local element i: shard_offset + (i / shard_inner) * shard_stride + i % shard_inner.
  int64_t shard_offset = 0, shard_inner = 0, shard_stride = 0;  // shard_inner 0: offset + i

  unsigned present_states() const {
    unsigned mask = 0;
    for (int k = 0; k < kMaxStates; ++k) mask |= states[k] != nullptr ? 1u << k : 0u;
    return mask;
  }
};

using TensorArgsVector = VectorLeftAsIs<TensorArgs>;

// A number that may live on the device, one for all tensors or one per tensor.
struct DeviceScalar {
  const void* data = nullptr;  // null: the host value counts
  DType dtype = DType::kFloat32;
  bool per_tensor = false;
};

MOMENTUM_HD double read(const DeviceScalar& scalar, int64_t tensor) {
  const int64_t i = scalar.per_tensor ? tensor : 0;
  return scalar.dtype == DType::kFloat64 ? static_cast<const double*>(scalar.data)[i]
                                         : double(static_cast<const float*>(scalar.data)[i]);
}

// Per tensor, before a step that uses the perpendicular part of gradients: three sums (core/perpendicular.h), which become
//   g - kPerpendicularShare w, times kPerpendicularKeep
inline constexpr int kPerpendicularTotals = 3, kPerpendicularShare = 0, kPerpendicularKeep = 1;

// The part of a call that is the same for all its tensors; plain data, so it can travel in kernel parameters.
struct CommonArgs {
  double hypers[kMaxHypers] = {};
  DeviceScalar hyper_tensors[kMaxHypers];
  DeviceScalar lr, weight_decay;
  StateFormat state_formats[kMaxStates];  // of those states whose dtype is kCodes
  const float* grad_scale = nullptr;
  const float* found_inf = nullptr;
  float* steps = nullptr;           // [n + 1]: completed steps per tensor, then the arrival counter
  double* totals = nullptr;         // see TotalsLayout
  double* perpendicular = nullptr;  // [n * kPerpendicularTotals], or null: gradients are used whole
  double max_lr = 1.0;
  double ema_decay = 0.0;
  DecayMode decay = DecayMode::kNone;
  Cautious cautious = Cautious::kOff;
  ResidualKind residual = ResidualKind::kNone;
  Rounding rounding = Rounding::kNearest;
  bool maximize = false;
  bool device_hypers = false;  // some hyper_tensors is set
  bool renormalize = false;    // what is left of a gradient keeps the norm of the whole
};

struct StepCall {
  TensorArgsVector tensors;
  CommonArgs common;
  // -1: the whole step; 2k: reduction k; 2k + 1: finalise it; 2 * reductions: the map; and, to run before all others, 1 more:
  // the sums of the perpendicular part; 2 more: settle them.
  int stage = -1;
};

inline constexpr int kWholeStep = -1;

}  // namespace momentum
