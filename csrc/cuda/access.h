// Groups of V consecutive elements between memory and registers.
//
// A load only moves bits; conversion is a separate step, so that the loads of all streams are in flight before the first of
// them is needed. The widest group is 16 bytes. A stream that cannot be read in one access, because its address has another
// phase than the others or because the group crosses an end of the tensor, is read element by element.
#pragma once

#include <cstdint>

#include "core/formats/formats.h"
#include "cuda/ptx.h"
#include "cuda/simt.h"

namespace momentum::cuda {

struct alignas(16) Raw {
  uint32_t word[4];
};

template <int kBytes>
struct Access;
template <>
struct Access<16> {
  using Type = uint4;
};
template <>
struct Access<8> {
  using Type = uint2;
};
template <>
struct Access<4> {
  using Type = uint32_t;
};
template <>
struct Access<2> {
  using Type = uint16_t;
};
template <>
struct Access<1> {
  using Type = uint8_t;
};

template <int kBytes>
__device__ __forceinline__ void load_bytes(const void* address, Raw& raw) {
  using Type = typename Access<kBytes>::Type;
  const Type value = *static_cast<const Type*>(address);
  if constexpr (kBytes == 16) {
    raw = {{value.x, value.y, value.z, value.w}};
  } else if constexpr (kBytes == 8) {
    raw.word[0] = value.x;
    raw.word[1] = value.y;
  } else {
    raw.word[0] = value;
  }
}

template <int kBytes>
__device__ __forceinline__ void store_bytes(void* address, const Raw& raw) {
  if constexpr (kBytes == 16) {
    ptx::store_vector(address, make_uint4(raw.word[0], raw.word[1], raw.word[2], raw.word[3]));
  } else if constexpr (kBytes == 8) {
    ptx::store_vector(address, make_uint2(raw.word[0], raw.word[1]));
  } else {
    using Type = typename Access<kBytes>::Type;
    *static_cast<Type*>(address) = Type(raw.word[0]);
  }
}

// One element of a raw group, as the bits its storage type has.
template <int kSize>
struct Element;
template <>
struct Element<2> {
  using Type = uint16_t;
  __device__ __forceinline__ static Type get(const Raw& raw, int v) { return Type(raw.word[v >> 1] >> ((v & 1) * 16)); }
  __device__ __forceinline__ static void set(Raw& raw, int v, Type bits) {
    const uint32_t shift = (v & 1) * 16;
    raw.word[v >> 1] = (raw.word[v >> 1] & ~(0xffffu << shift)) | (uint32_t(bits) << shift);
  }
};
template <>
struct Element<4> {
  using Type = float;
  __device__ __forceinline__ static Type get(const Raw& raw, int v) { return bit_cast<float>(raw.word[v]); }
  __device__ __forceinline__ static void set(Raw& raw, int v, Type value) { raw.word[v] = bit_cast<uint32_t>(value); }
};
template <>
struct Element<8> {
  using Type = double;
  __device__ __forceinline__ static Type get(const Raw& raw, int v) {
    return bit_cast<double>(uint64_t(raw.word[2 * v]) | (uint64_t(raw.word[2 * v + 1]) << 32));
  }
  __device__ __forceinline__ static void set(Raw& raw, int v, Type value) {
    const uint64_t bits = bit_cast<uint64_t>(value);
    raw.word[2 * v] = uint32_t(bits);
    raw.word[2 * v + 1] = uint32_t(bits >> 32);
  }
};

// The item sizes a group of V elements may have: those that fit 16 bytes.
template <int V, class Use>
__device__ __forceinline__ void with_size(int size, Use&& use) {
  if (V * 8 <= 16 && size == 8) {
    if constexpr (V * 8 <= 16) use(Element<8>{}, std::integral_constant<int, 8>{});
  } else if (V * 4 <= 16 && size == 4) {
    if constexpr (V * 4 <= 16) use(Element<4>{}, std::integral_constant<int, 4>{});
  } else {
    use(Element<2>{}, std::integral_constant<int, 2>{});
  }
}

// Elements i .. i + V of a stream of `numel`; those outside read as 0.
template <int V>
__device__ __forceinline__ Raw load_group(const void* base, DType dtype, bool aligned, int64_t i, int64_t numel) {
  Raw raw = {{0, 0, 0, 0}};
  ptx::assume_global(base);
  with_size<V>(item_size(dtype), [&](auto element, auto size) {
    using Item = decltype(element);
    const auto* items = static_cast<const typename Item::Type*>(base) + i;
    if (aligned && i >= 0 && i + V <= numel) {
      load_bytes<V* decltype(size)::value>(items, raw);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (i + v >= 0 && i + v < numel) Item::set(raw, v, items[v]);
      }
    }
  });
  return raw;
}

template <int V>
__device__ __forceinline__ void store_group(void* base, DType dtype, bool aligned, int64_t i, int64_t numel, const Raw& raw) {
  ptx::assume_global(base);
  with_size<V>(item_size(dtype), [&](auto element, auto size) {
    using Item = decltype(element);
    auto* items = static_cast<typename Item::Type*>(base) + i;
    if (aligned && i >= 0 && i + V <= numel) {
      store_bytes<V* decltype(size)::value>(items, raw);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (i + v >= 0 && i + v < numel) items[v] = Item::get(raw, v);
      }
    }
  });
}

// Elements i .. i + V of a stream of bytes, four to a word; those outside read as 0.
template <int V>
__device__ __forceinline__ Raw load_byte_group(const void* base, bool aligned, int64_t i, int64_t numel) {
  Raw raw = {{0, 0, 0, 0}};
  ptx::assume_global(base);
  const auto* bytes = static_cast<const uint8_t*>(base) + i;
  if (aligned && i >= 0 && i + V <= numel) {
    load_bytes<V>(bytes, raw);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (i + v >= 0 && i + v < numel) raw.word[v / 4] |= uint32_t(bytes[v]) << (v % 4 * 8);
    }
  }
  return raw;
}

template <int V>
__device__ __forceinline__ void store_byte_group(void* base, bool aligned, int64_t i, int64_t numel, const Raw& raw) {
  ptx::assume_global(base);
  auto* bytes = static_cast<uint8_t*>(base) + i;
  if (aligned && i >= 0 && i + V <= numel) {
    store_bytes<V>(bytes, raw);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (i + v >= 0 && i + v < numel) bytes[v] = uint8_t(raw.word[v / 4] >> (v % 4 * 8));
    }
  }
}

// The formats whose groups of V fit 16 bytes.
template <int V, class Use>
__device__ __forceinline__ void with_group_format(DType dtype, Use&& use) {
  if (dtype == DType::kBFloat16) {
    use(formats::BFloat16{});
  } else if (dtype == DType::kFloat16) {
    use(formats::Float16{});
  } else if (V * 8 <= 16 && dtype == DType::kFloat64) {
    if constexpr (V * 8 <= 16) use(formats::Float64{});
  } else {
    if constexpr (V * 4 <= 16) use(formats::Float32{});
  }
}

template <class T, int V>
__device__ __forceinline__ void decode_group(DType dtype, const Raw& raw, T* values) {
  with_group_format<V>(dtype, [&](auto format) {
    using Format = decltype(format);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = Format::template load<T>(Element<sizeof(typename Format::Storage)>::get(raw, v));
  });
}

template <class T, int V>
__device__ __forceinline__ Raw encode_group(DType dtype, const T* values) {
  Raw raw = {{0, 0, 0, 0}};
  with_group_format<V>(dtype, [&](auto format) {
    using Format = decltype(format);
#pragma unroll
    for (int v = 0; v < V; ++v) Element<sizeof(typename Format::Storage)>::set(raw, v, Format::template store<T>(values[v]));
  });
  return raw;
}

// For the two-byte formats; `random[v]` belongs to element v.
template <class T, int V>
__device__ __forceinline__ Raw encode_group_stochastic(DType dtype, const T* values, const uint32_t* random) {
  Raw raw = {{0, 0, 0, 0}};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const uint16_t bits = dtype == DType::kBFloat16 ? formats::BFloat16::store_stochastic(values[v], random[v])
                                                    : formats::Float16::store_stochastic(values[v], random[v]);
    Element<2>::set(raw, v, bits);
  }
  return raw;
}

}  // namespace momentum::cuda
