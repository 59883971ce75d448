#include "torch/direct/gradients.h"

#include <utility>

#include "torch/direct/ranges.h"
#include "torch/tensor_handle.h"

namespace momentum::ops::direct {
namespace {

constexpr size_t kAhead = 8;

// Handles of no tensor, kept for the next step: making one takes an allocation, and on cold caches each of those waits for the
// one before.
class SpareHandles {
 public:
  // The one after the next `ahead` is on its way when it returns.
  AtenTensorHandle take(size_t ahead) {
    if (handles_.empty()) {
      AtenTensorHandle handle = nullptr;
      TORCH_ERROR_CODE_CHECK(aoti_torch_new_uninitialized_tensor(&handle));
      handles_.emplace_back(handle);
    }
    if (handles_.size() > ahead) fetch(handles_[handles_.size() - 1 - ahead].get(), 1);
    const AtenTensorHandle handle = handles_.back().release();
    handles_.pop_back();
    return handle;
  }

  void give_back(AtenTensorHandle handle) {
    TensorHandle owned(handle);
    if (none_.get() == nullptr) {
      AtenTensorHandle none = nullptr;
      if (aoti_torch_new_uninitialized_tensor(&none) != AOTI_TORCH_SUCCESS) return;
      none_ = TensorHandle(none);
    }
    if (aoti_torch_assign_tensors(none_.get(), handle) == AOTI_TORCH_SUCCESS) handles_.push_back(std::move(owned));
  }

 private:
  TensorHandle none_;
  std::vector<TensorHandle> handles_;
};
thread_local SpareHandles spare_handles;

// A gradient of one element might be the imaginary part of a complex conjugate, negated lazily: see Source.
bool is_as_meant(const Environment& env, PyObject* param, AtenTensorHandle gradient) {
  int64_t numel = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_numel(gradient, &numel));
  if (numel != 1) return true;
  PyObject* object = env.python->attribute(param, "grad");
  if (object == nullptr) throw Declined{};
  const bool negated = is_negated(env, object);
  env.python->release(object);
  return !negated;
}

// The address of a pointer to the gradient of a plain parameter; null where it has none.
AtenTensorHandle gradient_of(const Environment& env, PyObject* param) {
  const void* gradient = env.torch.gradient(implementation_of(handle_of(env, param)));
  const auto handle = reinterpret_cast<AtenTensorHandle>(const_cast<void*>(gradient));
  bool defined = false;
  TORCH_ERROR_CODE_CHECK(aoti_torch_is_defined(handle, &defined));
  return defined ? handle : nullptr;
}

// Throws Declined where a parameter is not plain or has no gradient. No more than is needed for now is asked for ahead of time.
void find(const Environment& env, PyObject* const* params, size_t count, AtenTensorHandle* found) {
  for (size_t i = 0; i < count + 3 * kAhead; ++i) {
    if (i < count) fetch(params[i], 1);
    if (i >= kAhead && i - kAhead < count) {
      PyObject* param = params[i - kAhead];
      if (!is_plain(env, param)) throw Declined{};
      fetch(implementation_of(handle_of(env, param)), 1);
    }
    if (i >= 2 * kAhead && i - 2 * kAhead < count) {
      fetch_parts_of_tensor(implementation_of(handle_of(env, params[i - 2 * kAhead])));
    }
    if (i >= 3 * kAhead) {
      AtenTensorHandle& gradient = found[i - 3 * kAhead];
      gradient = gradient_of(env, params[i - 3 * kAhead]);
      if (gradient == nullptr) throw Declined{};
      fetch(implementation_of(gradient), 1);
    }
  }
}

}  // namespace

std::unique_ptr<Gradients> Gradients::of(const Environment& env, PyObject* params) {
  if (env.torch.gradient == nullptr || env.object_place < 0) return nullptr;
  const std::vector<PyObject*> items = items_of(env, params);
  const size_t count = items.size();
  std::vector<AtenTensorHandle> found(count);
  in_ranges(int64_t(count),
            [&](int64_t begin, int64_t end) { find(env, items.data() + begin, size_t(end - begin), found.data() + begin); });
  auto gradients = std::make_unique<Gradients>();
  gradients->parts_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch(object_of(env, implementation_of(found[i + kAhead])), 1);
    const void* implementation = implementation_of(found[i]);
    const PyObject* object = object_of(env, implementation);
    if (object != nullptr && !is_plain(env, object)) return nullptr;
    if (!is_as_meant(env, items[i], found[i])) return nullptr;
    gradients->parts_.push_back({spare_handles.take(kAhead), implementation, object});
    TORCH_ERROR_CODE_CHECK(aoti_torch_assign_tensors(found[i], gradients->parts_.back().handle));
  }
  return gradients;
}

// By now the kernels have had the caches; letting go of a tensor writes to it, and to its object.
Gradients::~Gradients() {
  const size_t count = parts_.size();
  for (size_t i = 0; i < count + kAhead; ++i) {
    if (i < count) {
      fetch(parts_[i].handle, 1);
      fetch(parts_[i].implementation, 1);
      fetch(parts_[i].object, 1);
    }
    if (i >= kAhead) spare_handles.give_back(parts_[i - kAhead].handle);
  }
}

}  // namespace momentum::ops::direct
