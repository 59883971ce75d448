// Functions of torch's own libraries that its stable interfaces do not offer, looked up by name when the direct entry is
// opened: nothing is linked against them. Where a torch lacks one, the same is done through Python.
#pragma once

namespace momentum::ops::direct {

// A C++ reference to a tensor is what a handle is: the address of a pointer to its implementation.
struct TorchFunctions {
  // torch::autograd::impl::bump_version(const at::Tensor&). Throws where the tensor has no version counter.
  void (*bump_version)(const void* tensor) = nullptr;
  // const at::Tensor& c10::TensorImpl::grad() const
  const void* (*gradient)(const void* implementation) = nullptr;

  static TorchFunctions find(const char* bump_version, const char* gradient);
};

}  // namespace momentum::ops::direct
