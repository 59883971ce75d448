// All storage formats, and the one place that turns a run-time DType into a compile-time format.
#pragma once

#include "core/formats/bfloat16.h"
#include "core/formats/float16.h"
#include "core/formats/float32.h"
#include "core/formats/float64.h"

namespace momentum::formats {

// Calls `use(Format{})` for the format of `dtype`.
template <class Use>
MOMENTUM_HD decltype(auto) with_format(DType dtype, Use&& use) {
  switch (dtype) {
    case DType::kBFloat16:
      return use(BFloat16{});
    case DType::kFloat16:
      return use(Float16{});
    case DType::kFloat64:
      return use(Float64{});
    default:
      return use(Float32{});
  }
}

}  // namespace momentum::formats
