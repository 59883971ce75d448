#include "torch/direct/gradients.h"

#include "torch/direct/ranges.h"

namespace momentum::ops::direct {
namespace {

constexpr size_t kAhead = 8;

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
  gradients->handles_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch(object_of(env, implementation_of(found[i + kAhead])), 1);
    const void* implementation = implementation_of(found[i]);
    const PyObject* object = object_of(env, implementation);
    if (object != nullptr && !is_plain(env, object)) return nullptr;
    if (!is_as_meant(env, items[i], found[i])) return nullptr;
    AtenTensorHandle kept = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(found[i], &kept));
    gradients->handles_.emplace_back(kept);
    gradients->parts_.push_back({implementation, object});
  }
  return gradients;
}

// By now the kernels have had the caches; letting go of a tensor writes to it, and to its object.
Gradients::~Gradients() {
  const size_t count = handles_.size();
  for (size_t i = 0; i < count + kAhead; ++i) {
    if (i < count) {
      fetch(parts_[i].implementation, 1);
      fetch(parts_[i].object, 1);
    }
    if (i >= kAhead) handles_[i - kAhead] = TensorHandle();
  }
}

}  // namespace momentum::ops::direct
