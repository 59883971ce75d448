# Imported target Torch::stable: the headers of LibTorch's stable ABI and the library that implements it.
#
# torch's own CMake package is not used: it drags in every dependency of the full C++ API, and on a CUDA build of torch
# it insists on a CUDA toolkit. The package folder is found without importing torch, which would take seconds.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE TorchStable_ROOT_DIR OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

if(TorchStable_ROOT_DIR AND EXISTS ${TorchStable_ROOT_DIR}/version.py)
  file(STRINGS ${TorchStable_ROOT_DIR}/version.py line REGEX "^__version__ = ")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" TorchStable_VERSION "${line}")
endif()
find_path(TorchStable_INCLUDE_DIR torch/csrc/stable/library.h PATHS ${TorchStable_ROOT_DIR}/include NO_DEFAULT_PATH)
find_file(TorchStable_LIBRARY libtorch_cpu.so PATHS ${TorchStable_ROOT_DIR}/lib NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TorchStable
  REQUIRED_VARS TorchStable_LIBRARY TorchStable_INCLUDE_DIR
  VERSION_VAR TorchStable_VERSION
  REASON_FAILURE_MESSAGE
    "${Python_EXECUTABLE} has no torch with the stable ABI: install torch >= 2.10 there and build with --no-build-isolation")

if(TorchStable_FOUND AND NOT TARGET Torch::stable)
  add_library(Torch::stable INTERFACE IMPORTED)
  target_include_directories(Torch::stable SYSTEM INTERFACE ${TorchStable_INCLUDE_DIR})
  # Nothing newer than 2.10 may be used, whatever torch the headers come from.
  target_compile_definitions(Torch::stable INTERFACE TORCH_TARGET_VERSION=0x020a000000000000)
  target_link_libraries(Torch::stable INTERFACE ${TorchStable_LIBRARY})
endif()
