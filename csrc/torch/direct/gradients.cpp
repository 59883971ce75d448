#include "torch/direct/gradients.h"

#include <utility>

#include "torch/direct/ranges.h"
#include "torch/tensor_handle.h"

namespace momentum::ops::direct {
namespace {

constexpr int64_t kAhead = 8;

// Handles of no tensor, kept for the next step: making one takes an allocation, and on cold caches each of those waits for the
// one before.
class SpareHandles {
 public:
  std::vector<AtenTensorHandle> take(size_t count) {
    while (handles_.size() < count) {
      AtenTensorHandle handle = nullptr;
      TORCH_ERROR_CODE_CHECK(aoti_torch_new_uninitialized_tensor(&handle));
      handles_.emplace_back(handle);
    }
    std::vector<AtenTensorHandle> taken(count);
    for (AtenTensorHandle& handle : taken) {
      handle = handles_.back().release();
      handles_.pop_back();
    }
    return taken;
  }
  // Of no tensor.
  void give_back(const std::vector<AtenTensorHandle>& handles) {
    for (size_t i = handles.size(); i-- > 0;) handles_.emplace_back(handles[i]);
  }

 private:
  std::vector<TensorHandle> handles_;
};
thread_local SpareHandles spare_handles;

// What is assigned to a handle to make it one of no tensor.
AtenTensorHandle no_tensor() {
  static const AtenTensorHandle none = [] {
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_uninitialized_tensor(&handle));
    return handle;
  }();
  return none;
}

// The address of a pointer to the gradient of a plain parameter; null where it has none.
AtenTensorHandle gradient_of(const Environment& env, PyObject* param) {
  const void* gradient = env.torch.gradient(implementation_of(handle_of(env, param)));
  const auto handle = reinterpret_cast<AtenTensorHandle>(const_cast<void*>(gradient));
  bool defined = false;
  TORCH_ERROR_CODE_CHECK(aoti_torch_is_defined(handle, &defined));
  return defined ? handle : nullptr;
}

}  // namespace

Gradients::Gradients(const Environment& env, std::vector<PyObject*> params)
    : env_(env), params_(std::move(params)), found_(params_.size()), implementations_(params_.size()) {}

std::unique_ptr<Gradients> Gradients::of(const Environment& env, PyObject* params) {
  if (!are_known(env)) return nullptr;
  auto gradients = std::make_unique<Gradients>(env, items_of(env, params));
  const auto count = int64_t(gradients->size());
  in_ranges(count, [&](int64_t begin, int64_t end) { gradients->find(begin, end); });
  for (size_t i = 0; i < gradients->size(); ++i) gradients->check_meaning(i);
  gradients->hold();
  return gradients;
}

bool Gradients::are_missing(const Environment& env, const std::vector<PyObject*>& params) {
  const Walk walk(env, params.data(), ptrdiff_t(params.size()));
  for (ptrdiff_t i = 0; i < walk.size(); ++i) {
    PyObject* param = walk[i];
    if (!is_plain(env, param) || gradient_of(env, param) != nullptr) return false;
  }
  return true;
}

// A chain of five reads: the object, the parameter, what autograd keeps of it, the gradient, its object. Each is asked for some
// parameters before it is needed.
void Gradients::find(int64_t begin, int64_t end) {
  if (!handles_.empty()) return;
  const int64_t count = end - begin;
  PyObject* const* params = params_.data() + begin;
  AtenTensorHandle* found = found_.data() + begin;
  const void** implementations = implementations_.data() + begin;
  const auto each = [count](int64_t i, const auto& step) {
    if (i >= 0 && i < count) step(i);
  };
  for (int64_t i = 0; i < count + 5 * kAhead; ++i) {
    each(i, [&](int64_t k) { fetch(params[k], 1); });
    each(i - kAhead, [&](int64_t k) {
      if (!is_plain(env_, params[k])) throw Declined{};
      fetch(implementation_of(handle_of(env_, params[k])), kTensorLines);
    });
    each(i - 2 * kAhead, [&](int64_t k) { fetch_parts_of_tensor(implementation_of(handle_of(env_, params[k]))); });
    each(i - 3 * kAhead, [&](int64_t k) {
      found[k] = gradient_of(env_, params[k]);
      if (found[k] == nullptr) throw Declined{};
      implementations[k] = implementation_of(found[k]);
      fetch(implementations[k], kTensorLines);
    });
    each(i - 4 * kAhead, [&](int64_t k) {
      fetch_parts_of_tensor(implementations[k]);
      fetch(object_of(env_, implementations[k]), 1);
    });
    each(i - 5 * kAhead, [&](int64_t k) {
      const PyObject* object = object_of(env_, implementations[k]);
      if (object != nullptr && !is_plain(env_, object)) throw Declined{};
    });
  }
}

void Gradients::check_meaning(size_t i) const {
  int64_t numel = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_numel(found_[i], &numel));
  if (numel != 1) return;
  PyObject* object = env_.python->attribute(params_[i], "grad");
  if (object == nullptr) throw Declined{};
  const bool negated = is_negated(env_, object);
  env_.python->release(object);
  if (negated) throw Declined{};
}

void Gradients::hold() {
  handles_ = spare_handles.take(size());
  // It has an owner, and a second one where it has an object; a third one is none of the interpreter's business.
  in_ranges(int64_t(size()), [this](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        fetch(implementations_[size_t(i + kAhead)], 1);
        fetch(handles_[size_t(i + kAhead)], 1);
      }
      TORCH_ERROR_CODE_CHECK(aoti_torch_assign_tensors(found_[size_t(i)], handles_[size_t(i)]));
    }
  });
  found_ = handles_;
}

Gradients::~Gradients() {
  if (handles_.empty()) return;
  let_go_of(0, int64_t(size()));
  give_back();
}

void Gradients::drop() {
  if (handles_.empty()) return;
  in_ranges(int64_t(size()), [this](int64_t begin, int64_t end) { let_go_of(begin, end); });
  give_back();
}

// By now the kernels have had the caches; letting go of a tensor writes to it.
void Gradients::let_go_of(int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end + kAhead; ++i) {
    if (i < end) {
      fetch(handles_[size_t(i)], 1);
      fetch(implementations_[size_t(i)], 1);
    }
    if (i >= begin + kAhead) aoti_torch_assign_tensors(no_tensor(), handles_[size_t(i - kAhead)]);
  }
}

void Gradients::give_back() {
  spare_handles.give_back(handles_);
  handles_.clear();
}

}  // namespace momentum::ops::direct
