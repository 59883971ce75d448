// The ways in which every rule is called: each option appears in some of them, next to others it may disturb.
#pragma once

#include <cstdint>
#include <span>

#include "core/call.h"

namespace momentum::sanitizers {

enum class Formats : int8_t {
  kSingle,  // float32 throughout
  kMixed,   // float32, bfloat16 and float16, another choice for each stream of each tensor
  kDouble,  // float64 params among float32 ones; the other streams as in kMixed, or float64
};

struct Scenario {
  const char* name;
  Formats formats = Formats::kSingle;
  bool misaligned = false;
  bool optional_states = false;
  bool ema = false;
  bool grad_scale = false;
  bool found_inf = false;
  bool device_scalars = false;  // learning rate, weight decay and hyper-parameters as device memory
  bool sharded = false;
  bool staged = false;  // reductions and map called one by one
  bool maximize = false;
  bool perpendicular = false;
  int tiny_tensors = 0;          // added to the list, to fill more than the table of one launch
  bool resident_tables = false;  // long tables stay in device memory
  DecayMode decay = DecayMode::kNone;
  Cautious cautious = Cautious::kOff;
  ResidualKind residual = ResidualKind::kNone;
  Rounding rounding = Rounding::kNearest;
  // Tensors with more than 100 elements keep their states as codes: signed ones the first, unsigned ones the others.
  formats::CodeMap signed_map = formats::CodeMap::kNone, unsigned_map = formats::CodeMap::kNone;
  Scaling scaling = Scaling::kBlock;
  int block = 128;
  bool stochastic_codes = false;

  bool quantised() const { return signed_map != formats::CodeMap::kNone; }
};

std::span<const Scenario> scenarios();

}  // namespace momentum::sanitizers
