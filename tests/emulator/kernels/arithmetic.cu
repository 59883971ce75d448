// Intrinsic functions on values whose results are known, and number formats over all their bit patterns.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <limits>

#include "harness.h"

namespace {

const Register bit_functions{"bit functions", [] {
                               expect("popc", __popc(0xf0f0f0f1u), 17);
                               expect("popcll", __popcll(0xffull << 50), 8);
                               expect("clz", __clz(1), 31);
                               expect("clz 0", __clz(0), 32);
                               expect("clzll", __clzll(1), 63);
                               expect("ffs", __ffs(0b1000), 4);
                               expect("ffs 0", __ffs(0), 0);
                               expect("ffsll", __ffsll(1ll << 40), 41);
                               expect("brev", __brev(0x80000001u << 1), 0x40000000u);
                               expect("byte_perm", __byte_perm(0x33221100u, 0x77665544u, 0x7250u), 0x77225500u);
                               expect("funnelshift_l", __funnelshift_l(0x80000000u, 0x1u, 1), 3u);
                               expect("funnelshift_r", __funnelshift_r(0x80000000u, 0x1u, 31), 3u);
                               expect("float_as_uint", __float_as_uint(1.0f), 0x3f800000u);
                               expect("int_as_float", __int_as_float(0x40000000), 2.0f);
                               expect("hiloint2double", __hiloint2double(__double2hiint(1.5), __double2loint(1.5)), 1.5);
                             }};

const Register integer_functions{"integer functions", [] {
                                   expect("umulhi", __umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
                                   expect("mulhi", __mulhi(-1, 1), -1);
                                   expect("umul64hi", __umul64hi(~0ull, ~0ull), ~0ull - 1);
                                   expect("mul64hi", __mul64hi(-1, 1), -1ll);
                                   expect("min", min(-3, 2), -3);
                                   expect("max", max(3u, 2u), 3u);
                                   expect("max of a NaN", max(std::numeric_limits<float>::quiet_NaN(), 1.0f), 1.0f);
                                 }};

const Register float_functions{"float functions", [] {
                                 expect("rsqrtf", rsqrtf(4.0f), 0.5f);
                                 expect("frcp", __frcp_rn(4.0f), 0.25f);
                                 expect("fdividef", __fdividef(1.0f, 8.0f), 0.125f);
                                 // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, of which a product that is rounded loses the last term.
                                 expect("fmaf", __fmaf_rn(0x1.001p0f, 0x1.001p0f, -1.0f), 0x1.0008p-11f);
                                 expect("fmul", __fmul_rn(0x1.001p0f, 0x1.001p0f) - 1.0f, 0x1p-11f);
                                 expect("saturate", __saturatef(1.5f), 1.0f);
                                 expect("saturate NaN", __saturatef(std::numeric_limits<float>::quiet_NaN()), 0.0f);
                                 expect("float2int_rn", __float2int_rn(2.5f), 2);
                                 expect("float2int_rz", __float2int_rz(-2.5f), -2);
                                 expect("float2int too large", __float2int_rz(1e20f), std::numeric_limits<int>::max());
                                 expect("float2int NaN", __float2int_rz(std::numeric_limits<float>::quiet_NaN()), 0);
                                 expect("float2uint negative", __float2uint_rz(-1.0f), 0u);
                               }};

const Register sixteen_bits{"16-bit floats", [] {
                              for (unsigned bits = 0; bits < 65536; ++bits) {
                                const auto pattern = static_cast<unsigned short>(bits);
                                const float brain = __bfloat162float(__ushort_as_bfloat16(pattern)),
                                            half = __half2float(__ushort_as_half(pattern));
                                if (!std::isnan(brain)) expect("bf16", __bfloat16_as_ushort(__float2bfloat16(brain)), pattern);
                                if (!std::isnan(half)) expect("fp16", __half_as_ushort(__float2half(half)), pattern);
                              }
                            }};

}  // namespace
