// A tensor of torch's, kept alive.
#pragma once

#include <torch/csrc/stable/library.h>

#include <utility>

namespace momentum::ops {

// Owns one tensor handle.
class TensorHandle {
 public:
  explicit TensorHandle(AtenTensorHandle handle = nullptr) : handle_(handle) {}
  TensorHandle(TensorHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  TensorHandle& operator=(TensorHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~TensorHandle() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }
  AtenTensorHandle get() const { return handle_; }
  AtenTensorHandle release() { return std::exchange(handle_, nullptr); }

 private:
  AtenTensorHandle handle_;
};

}  // namespace momentum::ops
