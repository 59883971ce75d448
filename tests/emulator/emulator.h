// The device side of CUDA for a host compiler: what csrc/cuda/simt.h includes when MOMENTUM_EMULATE is defined.
// README.md says what is modelled, what is checked, and how to read an error.
#pragma once

#include "arithmetic.h"
#include "atomics.h"
#include "language.h"
#include "launch.h"
#include "memory.h"
#include "warp_intrinsics.h"
