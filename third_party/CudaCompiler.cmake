# Sets MOMENTUM_HAVE_CUDA, enables the CUDA language, and finds MOMENTUM_CUDA_INCLUDE_DIR (also useful without nvcc:
# the emulator compiles kernels against CUDA's own headers).
#
# nvcc is looked for in $CUDACXX, on PATH, in /usr/local/cuda, and last in the Python environment, where the packages of
# dependency group `nvcc` put a complete one.
if(NOT MOMENTUM_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MOMENTUM_CUDA must be AUTO, ON or OFF, not '${MOMENTUM_CUDA}'")
endif()

execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import importlib.util as u; s = u.find_spec('nvidia'); print(';'.join(s.submodule_search_locations) if s else '')"
  OUTPUT_VARIABLE nvidia_dirs OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(TRANSFORM nvidia_dirs APPEND /cu13)

set(nvcc $ENV{CUDACXX})
if(NOT nvcc)
  find_program(MOMENTUM_NVCC nvcc PATHS /usr/local/cuda/bin)
  foreach(dir IN LISTS nvidia_dirs)
    find_program(MOMENTUM_NVCC nvcc PATHS ${dir}/bin NO_DEFAULT_PATH)
  endforeach()
  if(MOMENTUM_NVCC)
    set(nvcc ${MOMENTUM_NVCC})
  endif()
endif()

set(MOMENTUM_HAVE_CUDA OFF)
if(NOT MOMENTUM_CUDA STREQUAL "OFF" AND nvcc)
  # The packages have lib/, where nvcc looks for lib64/; the host compiler searches LIBRARY_PATH as well.
  get_filename_component(nvcc_root ${nvcc}/../.. REALPATH)
  if(NOT EXISTS ${nvcc_root}/lib64 AND EXISTS ${nvcc_root}/lib/libcudart_static.a)
    set(ENV{LIBRARY_PATH} "${nvcc_root}/lib:$ENV{LIBRARY_PATH}")
    link_directories(${nvcc_root}/lib)
  endif()
  set(ENV{CUDACXX} ${nvcc})
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  # "80;90" -> "80-real;90": machine code for each, and PTX of the last.
  set(CMAKE_CUDA_ARCHITECTURES "")
  foreach(arch IN LISTS MOMENTUM_CUDA_ARCHS)
    if(NOT arch MATCHES "^[0-9]+$")
      message(FATAL_ERROR "MOMENTUM_CUDA_ARCHS must be a list such as 80;90, not '${MOMENTUM_CUDA_ARCHS}'")
    endif()
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
  endforeach()
  list(POP_BACK CMAKE_CUDA_ARCHITECTURES last)
  string(REPLACE "-real" "" last ${last})
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${last})
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE) # a failure of an earlier configuration is not remembered
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    set(MOMENTUM_HAVE_CUDA ON)
  endif()
endif()

if(MOMENTUM_HAVE_CUDA)
  message(STATUS "momentum: CUDA kernels ON, nvcc ${CMAKE_CUDA_COMPILER_VERSION}, sm ${MOMENTUM_CUDA_ARCHS}")
elseif(MOMENTUM_CUDA STREQUAL "ON")
  if(nvcc)
    message(FATAL_ERROR "MOMENTUM_CUDA=ON, but ${nvcc} cannot compile and link a program (see the log above)")
  endif()
  message(FATAL_ERROR "MOMENTUM_CUDA=ON, but there is no nvcc: put one on PATH, set CUDACXX, or run "
                      "`pip install --group nvcc`")
elseif(MOMENTUM_CUDA STREQUAL "AUTO")
  message(WARNING "momentum: no working nvcc, so this build has NO CUDA KERNELS. Set MOMENTUM_CUDA=ON to make that an "
                  "error, or OFF to silence this warning.")
else()
  message(STATUS "momentum: CUDA kernels OFF, as asked")
endif()

foreach(dir IN LISTS nvcc_root nvidia_dirs ITEMS /usr/local/cuda)
  find_path(MOMENTUM_CUDA_INCLUDE_DIR cuda_bf16.h PATHS ${dir}/include NO_DEFAULT_PATH)
endforeach()
