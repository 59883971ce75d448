// Refusals: one exception that names the op, the argument, what was expected and what came.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "torch/backend.h"

namespace momentum::ops {

template <class... Parts>
[[noreturn, gnu::cold, gnu::noinline]] void refuse(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << backend::kNamespace << "::" << op << ": ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

}  // namespace momentum::ops
