#include "array/quantised.h"

namespace momentum::array {

QuantisedStates::QuantisedStates(const Rule& rule, Reader& read, int64_t count)
    : rule_(rule), read_(read), count_(size_t(count)) {
  const std::vector<int64_t> numbers = read.integers("state_formats");
  const size_t expected = 4 * rule.states.size();
  if (!numbers.empty() && numbers.size() != expected) {
    read.refuse("state_formats: expected no integers or ", expected, ", four for each state, got ", numbers.size());
  }
  size_t total = 0;
  for (int k = 0; k < int(numbers.size()) / 4; ++k) {
    read_format(k, numbers);
    first_scale_[k] = total;
    total += is_quantised(k) ? count_ : 0;
  }
  scales_ = read.arrays("scales", int64_t(total), false, true, "one for each of params in each quantised state");
  for (int k = 0; k < int(rule.states.size()); ++k) set_scale_dtype(k);
}

void QuantisedStates::read_format(int k, const std::vector<int64_t>& numbers) {
  const auto number = [&](int offset, int64_t low, int64_t high) {
    const int64_t value = numbers[size_t(4 * k + offset)];
    if (value >= low && value <= high) return value;
    read_.refuse(label("state_formats", size_t(4 * k + offset)), ": expected a number in [", low, ", ", high, "], got ", value);
  };
  const int64_t map = number(0, 0, formats::kCodeMaps - 1);
  if (map == 0) return;
  const StateInfo& state = rule_.states[size_t(k)];
  if (state.optional && read_.length(state.name) == 0) {
    read_.refuse(label("state_formats", size_t(4 * k)), ": expected 0, as ", state.name, " is not given, got ", map);
  }
  const int64_t block = numbers[size_t(4 * k + 1)];
  read_.check_block(label("state_formats", size_t(4 * k + 1)), block);
  StateFormat& format = formats_[k];
  format.map = formats::CodeMap(map);
  format.block = int(block);
  format.stochastic = number(2, 0, 1) == 1;
  format.scaling = Scaling(number(3, 0, 2));
}

// All scales of a state have one dtype: that of the first that is not empty.
void QuantisedStates::set_scale_dtype(int k) {
  if (!is_quantised(k)) return;
  for (size_t i = 0; i < count_; ++i) {
    const Array& scales = scales_[place(k, i)];
    if (scales.numel == 0) continue;
    formats_[k].scale_dtype = read_.scale_dtype(label("scales", place(k, i)), scales, formats_[k]);
    return;
  }
}

void QuantisedStates::use_codes(int k, size_t i, const std::string& name, const Array& codes, TensorArgs& t) const {
  const StateFormat& format = formats_[k];
  if (!is_quantised(k)) {
    read_.refuse(name, ": expected a floating point dtype, as state_formats names no format for this state, got uint8");
  }
  if (t.param_dtype == DType::kFloat64) {
    read_.refuse(name, ": expected float64 as params[", i, "], whose states are not quantised, got uint8");
  }
  read_.expect_codes(name, codes, formats::code_bytes(format.map, t.numel));
  const Array& scales = scales_[place(k, i)];
  const int64_t count = scale_count(format, t.numel, t.rows, t.cols);
  read_.expect_vector(label("scales", place(k, i)), scales, format.scale_dtype, count);
  t.states[k] = codes.data;
  t.state_dtypes[k] = DType::kCodes;
  t.scales[k] = scales.data;
}

void QuantisedStates::expect_no_scales(int k, size_t i) const {
  if (!is_quantised(k) || scales_[place(k, i)].numel == 0) return;
  read_.refuse(label("scales", place(k, i)), ": expected an empty array, as ", label(rule_.states[size_t(k)].name, i),
               " is not quantised, got shape ", shape_name(scales_[place(k, i)].shape));
}

}  // namespace momentum::array
