// An op as the direct entry calls it.
#pragma once

#include <functional>
#include <memory>

#include "torch/direct/source.h"

namespace momentum::ops::direct {

class Op {
 public:
  virtual ~Op() = default;
  // Takes all arguments and refuses what a kernel must not see. What it returns does the work; nothing in that refers to the
  // arguments.
  virtual std::function<void()> check(Source& source) const = 0;

  // By its name without the underscore; null where there is none.
  static std::unique_ptr<Op> find(const char* name);
};

}  // namespace momentum::ops::direct
