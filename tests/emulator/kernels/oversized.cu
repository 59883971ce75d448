// A kernel whose __shared__ variables do not fit a block. All variables of a program are checked at its first launch, so
// this is a program of its own.
#include "harness.h"

namespace {

__global__ void oversized_kernel(float* out) {
  __shared__ float first[8192];
  __shared__ float second[8192];
  first[threadIdx.x] = second[threadIdx.x] = 1;
  out[threadIdx.x] = first[threadIdx.x] + second[threadIdx.x];
}

const Register oversized{"oversized static shared memory", [] {
                           float out = 0;
                           launch(oversized_kernel, 1, 1, 0, &out);
                         }};

}  // namespace
