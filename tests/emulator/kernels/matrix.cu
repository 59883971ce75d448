// Asynchronous copies, ldmatrix and mma, alone and together.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "harness.h"
#include "syrk.h"

namespace {

namespace ptx = momentum::ptx;

// Copies in groups of one, waited for one after another; every third is a fill with zeros.
template <int kBytes>
__global__ void copy_kernel(const unsigned char* in, unsigned char* out) {
  __shared__ __align__(16) unsigned char landing[2][32 * kBytes];
  const unsigned offset = threadIdx.x * kBytes;
  ptx::copy_async<kBytes>(landing[0] + offset, in + offset, threadIdx.x % 3 != 0);
  ptx::commit_copies();
  ptx::copy_async<kBytes>(landing[1] + offset, in + 32 * kBytes + offset);
  ptx::commit_copies();
  ptx::wait_copies<1>();
  for (unsigned i = 0; i < kBytes; ++i) out[offset + i] = landing[0][offset + i];
  ptx::wait_copies<0>();
  __syncthreads();
  const unsigned other = 31 * kBytes - offset;
  for (unsigned i = 0; i < kBytes; ++i) out[32 * kBytes + offset + i] = landing[1][other + i];
}

template <int kBytes>
void copies_of() {
  struct alignas(16) Block {
    unsigned char bytes[64 * kBytes];
  };
  std::vector<Block> in(1);
  std::vector<unsigned char> out(64 * kBytes), expected(64 * kBytes);
  for (unsigned i = 0; i < 64 * kBytes; ++i) in[0].bytes[i] = static_cast<unsigned char>(i * 7 % 251);
  for (unsigned thread = 0; thread < 32; ++thread) {
    for (unsigned i = 0; i < kBytes; ++i) {
      expected[thread * kBytes + i] = thread % 3 ? in[0].bytes[thread * kBytes + i] : 0;
      expected[(32 + thread) * kBytes + i] = in[0].bytes[(63 - thread) * kBytes + i];
    }
  }
  launch(copy_kernel<kBytes>, 1, 32, 0, static_cast<const unsigned char*>(in[0].bytes), out.data());
  expect_equal("byte", out, expected);
}

const Register copies{"asynchronous copies", [] {
                        copies_of<4>();
                        copies_of<8>();
                        copies_of<16>();
                      }};

template <bool kTransposed, int kMatrices>
__global__ void load_kernel(const unsigned short* in, unsigned* out) {
  __shared__ __align__(16) unsigned short rows[kMatrices * 64];
  for (unsigned i = threadIdx.x; i < kMatrices * 64; i += 32) rows[i] = in[i];
  __syncwarp();
  uint32_t fragment[kMatrices];
  ptx::load_matrices<kTransposed>(fragment, rows + threadIdx.x % (8 * kMatrices) * 8);
  for (int m = 0; m < kMatrices; ++m) out[m * 32 + threadIdx.x] = fragment[m];
}

template <bool kTransposed, int kMatrices>
void load_of() {
  std::vector<unsigned short> in(kMatrices * 64);
  std::vector<unsigned> out(kMatrices * 32), expected(kMatrices * 32);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<unsigned short>(i * 40503);
  for (unsigned m = 0; m < kMatrices; ++m) {
    for (unsigned row = 0; row < 8; ++row) {
      for (unsigned column = 0; column < 8; ++column) {
        // PTX manual: the lane 4 * row + column / 2 holds the element in its lower or upper half.
        const unsigned value = in[m * 64 + (kTransposed ? column * 8 + row : row * 8 + column)];
        expected[m * 32 + row * 4 + column / 2] |= value << column % 2 * 16;
      }
    }
  }
  launch(load_kernel<kTransposed, kMatrices>, 1, 32, 0, static_cast<const unsigned short*>(in.data()), out.data());
  expect_equal("fragment", out, expected);
}

const Register load{"ldmatrix", [] {
                      load_of<false, 1>();
                      load_of<false, 2>();
                      load_of<false, 4>();
                      load_of<true, 1>();
                      load_of<true, 2>();
                      load_of<true, 4>();
                    }};

// D = A B + D for 16 x 16 A and 16 x 8 B (stored by columns), with fragments filled element by element.
template <class Element, bool kBrain>
__global__ void multiply_kernel(const Element* a, const Element* b, float* d) {
  const unsigned group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  const auto two = [](const Element* from) {
    return static_cast<uint32_t>(*reinterpret_cast<const unsigned short*>(from)) |
           static_cast<uint32_t>(*reinterpret_cast<const unsigned short*>(from + 1)) << 16;
  };
  const uint32_t left[4] = {two(a + group * 16 + pair), two(a + (group + 8) * 16 + pair), two(a + group * 16 + pair + 8),
                            two(a + (group + 8) * 16 + pair + 8)};
  const uint32_t right[2] = {two(b + group * 16 + pair), two(b + group * 16 + pair + 8)};
  float sum[4];
  for (unsigned i = 0; i < 4; ++i) sum[i] = d[(group + i / 2 * 8) * 8 + pair + i % 2];
  if constexpr (kBrain) {
    ptx::multiply_add_bf16(sum, left, right);
  } else {
    ptx::multiply_add_f16(sum, left, right);
  }
  for (unsigned i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + pair + i % 2] = sum[i];
}

template <class Element, bool kBrain>
void multiply_of() {
  std::vector<Element> a(16 * 16), b(8 * 16);
  std::vector<float> d(16 * 8), expected(16 * 8);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = Element(static_cast<float>(i * 7 % 13) - 6);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = Element(static_cast<float>(i * 5 % 11) - 5);
  for (std::size_t i = 0; i < d.size(); ++i) {
    d[i] = expected[i] = static_cast<float>(i);
    for (std::size_t k = 0; k < 16; ++k)
      expected[i] += static_cast<float>(a[i / 8 * 16 + k]) * static_cast<float>(b[i % 8 * 16 + k]);
  }
  launch(multiply_kernel<Element, kBrain>, 1, 32, 0, static_cast<const Element*>(a.data()),
         static_cast<const Element*>(b.data()), d.data());
  expect_equal("element", d, expected);
}

const Register multiply{"mma", [] {
                          multiply_of<__nv_bfloat16, true>();
                          multiply_of<__half, false>();
                        }};

const Register pipeline{"pipelined product", [] {
                          syrk::check<syrk::kRightWait, true>(100, 72);
                          syrk::check<syrk::kRightWait, true>(64, 8);
                        }};

}  // namespace
