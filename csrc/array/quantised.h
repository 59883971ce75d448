// The states of a call that are stored as codes and scales.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "array/reader.h"
#include "array/rule.h"

namespace momentum::array {

class QuantisedStates {
 public:
  // Reads `state_formats` and `scales` of a call with `count` params. There are four numbers per state: the code map, elements
  // per block, how codes are rounded, and what has a scale. Scales come in one list, those of the first quantised state before
  // those of the next.
  QuantisedStates(const Rule& rule, Reader& read, int64_t count);

  const StateFormat& format(int k) const { return formats_[k]; }
  const std::vector<Array>& scales() const { return scales_; }

  // State k of param i is `codes`, which messages call `name`.
  void use_codes(int k, size_t i, const std::string& name, const Array& codes, TensorArgs& t) const;
  // It is not quantised, or left out: its scales must be an empty array.
  void expect_no_scales(int k, size_t i) const;

 private:
  void read_format(int k, const std::vector<int64_t>& numbers);
  void set_scale_dtype(int k);
  bool is_quantised(int k) const { return formats_[k].map != formats::CodeMap::kNone; }
  size_t place(int k, size_t i) const { return first_scale_[k] + i; }

  const Rule& rule_;
  const Reader& read_;
  size_t count_;
  StateFormat formats_[kMaxStates];
  std::vector<Array> scales_;
  size_t first_scale_[kMaxStates] = {};  // of each quantised state
};

}  // namespace momentum::array
