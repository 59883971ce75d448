#include "torch/direct/run.h"

#include <exception>
#include <string>

#include "torch/direct/ranges.h"

namespace momentum::ops::direct {

std::optional<std::function<void()>> checked_call(const Environment& env, const Op& op, PyObject* arguments,
                                                  const Supply& supply) {
  try {
    Source source(env, arguments, supply);
    return op.check(source);
  } catch (const Declined&) {
  } catch (const std::exception&) {
  }
  env.python->clear_error();
  return std::nullopt;
}

bool bump_versions(const Environment& env, const TensorLists& lists) {
  const auto bump = env.torch.bump_version;
  if (bump == nullptr) return false;
  const auto size = [&](size_t k) { return int64_t(lists[k]->size()); };
  try {
    for (size_t first = 0, last = 0; first < lists.size(); first = last) {
      while (last < lists.size() && size(last) == size(first)) ++last;
      // Lists of one length together: a thread then has the tensors that it read.
      in_ranges(size(first), [&](int64_t begin, int64_t end) {
        for (size_t k = first; k < last; ++k) {
          for (int64_t i = begin; i < end; ++i) bump(handle_of(env, (*lists[k])[size_t(i)]));
        }
      });
    }
  } catch (...) {
    return false;
  }
  return true;
}

Outcome run_released(const Environment& env, const std::function<void()>& work) {
  const Python& python = *env.python;
  void* thread = python.release_interpreter();
  std::string failure;
  try {
    work();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  python.take_interpreter(thread);
  if (failure.empty()) return kDone;
  python.raise(*python.runtime_error, failure.c_str());
  return kFailed;
}

}  // namespace momentum::ops::direct
