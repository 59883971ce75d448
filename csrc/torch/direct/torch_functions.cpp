#include "torch/direct/torch_functions.h"

#include <dlfcn.h>

namespace momentum::ops::direct {

TorchFunctions TorchFunctions::find(const char* bump_version, const char* gradient) {
  TorchFunctions functions;
  // Loaded already: this object depends on it. Its own dependencies are searched as well.
  void* library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return functions;
  functions.bump_version = reinterpret_cast<decltype(functions.bump_version)>(dlsym(library, bump_version));
  functions.gradient = reinterpret_cast<decltype(functions.gradient)>(dlsym(library, gradient));
  dlclose(library);
  return functions;
}

}  // namespace momentum::ops::direct
