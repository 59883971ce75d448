// Numbers of dynamic codes of 8 bits out of tables, for processors that permute bytes (AVX-512 VBMI): 64 codes at a time, the
// four bytes of their numbers one after another. Half the instructions of DynamicBytesDecoder for signed codes.
#pragma once

#include "cpu/codecs.h"

#if defined(__AVX512VBMI__)

namespace momentum::cpu::MOMENTUM_ISA {

// Byte b of the number of code or magnitude i.
struct ByteTables {
  alignas(64) uint8_t of[4][256] = {};

  // Of a signed map by magnitude, as 1 is the only number of magnitude 128, which is no index of a table of 128; of an unsigned
  // one by code.
  constexpr explicit ByteTables(CodeMap map) {
    const int count = formats::is_unsigned(map) ? 256 : 128, zero = formats::is_unsigned(map) ? 0 : formats::dynamic::zero(map);
    for (int i = 0; i < count; ++i) {
      const auto bits = bit_cast<uint32_t>(formats::decode(map, uint32_t(zero + i)));
      for (int b = 0; b < 4; ++b) of[b][i] = uint8_t(bits >> 8 * b);
    }
  }
};
template <CodeMap kMap>
inline constexpr ByteTables kByteTables{kMap};

// Where the codes of a group go before their numbers are made, so that these end up as vectors in order.
template <Order kOrder>
struct GroupPlaces {
  alignas(64) uint8_t of[kGroup] = {};
  constexpr GroupPlaces() {
    // Unpacking twice leaves byte 16 l + 4 s + q in place 4 l + q of vector s.
    for (int i = 0; i < kGroup; ++i) {
      const int s = i / 4 % 4, place = i / 16 * 4 + i % 4;
      of[i] = uint8_t(kOrder == Order::kRising ? kVector * s + place : kPair * (s / 2) + 2 * place + s % 2);
    }
  }
};
template <Order kOrder>
inline constexpr GroupPlaces<kOrder> kGroupPlaces;

template <Order kOrder>
inline __m512i load_group(const uint8_t* codes) {
  return _mm512_maskz_permutexvar_epi8(~uint64_t(0), load<__m512i>(kGroupPlaces<kOrder>.of), load<__m512i>(codes));
}

// The numbers of which these are the bytes.
inline void unpack_bytes(const __m512i* bytes, Floats* x) {
  constexpr __mmask64 kBytes = ~uint64_t(0);
  constexpr __mmask32 kWords = ~0u;
  const __m512i low[2] = {_mm512_maskz_unpacklo_epi8(kBytes, bytes[0], bytes[1]),
                          _mm512_maskz_unpackhi_epi8(kBytes, bytes[0], bytes[1])};
  const __m512i high[2] = {_mm512_maskz_unpacklo_epi8(kBytes, bytes[2], bytes[3]),
                           _mm512_maskz_unpackhi_epi8(kBytes, bytes[2], bytes[3])};
  for (int half = 0; half < 2; ++half) {
    x[2 * half] = reinterpret_cast<Floats>(_mm512_maskz_unpacklo_epi16(kWords, low[half], high[half]));
    x[2 * half + 1] = reinterpret_cast<Floats>(_mm512_maskz_unpackhi_epi16(kWords, low[half], high[half]));
  }
}

inline __m512i look_up_byte(const uint8_t* table, __m512i index) {
  return _mm512_permutex2var_epi8(load<__m512i>(table), index, load<__m512i>(table + 64));
}

// The numbers of a group of codes of a signed map.
template <CodeMap kMap, Order kOrder>
inline void decode_signed_group(const uint8_t* codes, Floats* x) {
  const auto& table = kByteTables<kMap>.of;
  const __m512i steps = _mm512_sub_epi8(load_group<kOrder>(codes), _mm512_set1_epi8(int8_t(formats::dynamic::zero(kMap))));
  const __m512i magnitude = _mm512_maskz_abs_epi8(~uint64_t(0), steps), sign = _mm512_set1_epi8(int8_t(0x80));
  const __mmask64 one = _mm512_movepi8_mask(magnitude);  // 0x3f800000; its magnitude is 0x80
  __m512i bytes[4];
  bytes[0] = look_up_byte(table[0], magnitude);
  bytes[1] = look_up_byte(table[1], magnitude);
  bytes[2] = _mm512_mask2_permutex2var_epi8(load<__m512i>(table[2]), magnitude, ~one, load<__m512i>(table[2] + 64));
  const __m512i last = _mm512_or_si512(look_up_byte(table[3], magnitude), _mm512_and_si512(steps, sign));
  bytes[3] = _mm512_mask_blend_epi8(one, last, _mm512_set1_epi8(0x3f));
  unpack_bytes(bytes, x);
}

// Of an unsigned map.
template <CodeMap kMap, Order kOrder>
inline void decode_unsigned_group(const uint8_t* codes, Floats* x) {
  const auto& table = kByteTables<kMap>.of;
  const __m512i code = load_group<kOrder>(codes);
  const __mmask64 upper = _mm512_movepi8_mask(code);
  __m512i bytes[4];
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    bytes[b] = _mm512_mask_blend_epi8(upper, look_up_byte(table[b], code), look_up_byte(table[b] + 128, code));
  }
  unpack_bytes(bytes, x);
}

}  // namespace momentum::cpu::MOMENTUM_ISA

#endif
