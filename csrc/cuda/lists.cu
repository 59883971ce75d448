// Operations over lists of tensors: one pass, groups of neighbours that 16 bytes of the arithmetic type hold, as in the map of
// a step. Bytes per element are those of the streams an operation reads and writes.
#include "core/philox.h"
#include "cuda/access.h"
#include "cuda/launch_tables.h"
#include "cuda/lists.h"
#include "cuda/streams.h"

namespace momentum::cuda {
namespace {

constexpr int64_t kClearChunk = 65536;  // bytes

template <class Op>
struct ListHeader {
  Op op;
  const void* resident;
  uint32_t chunks, entries;
};

template <class Op, int kStreams>
struct ListParams {
  using Entry = EntryBase<(kStreams > 2 ? kStreams - 2 : 0)>;
  static constexpr int kCapacity = (kParameterBytes - int(sizeof(ListHeader<Op>)) - 16) / int(sizeof(Entry));
  ListHeader<Op> header;
  union {
    Entry table[kCapacity];
    ResidentPart part;
  };
};

template <class Entry>
__device__ __forceinline__ void* stream_of(const Entry& e, int s) {
  return s == 0 ? e.param : s == 1 ? const_cast<void*>(e.grad) : e.states[s - 2];
}

// For elements i .. i + V. Where i is odd, a pair more reaches over both ends.
template <class T, int V>
__device__ __forceinline__ void draw_group(const lists::Move& op, uint32_t index, int64_t i, T* z) {
  const bool odd = (i & 1) != 0;
  float drawn[V + 2] = {};
  PhiloxWords words{};
#pragma unroll
  for (int v = 0; v < V + 2; v += 2) {
    const int64_t element = i - (odd ? 1 : 0) + v;
    const bool upper = (element & 2) != 0;
    if (v == V && !odd) continue;
    if (v == 0 || !upper) words = philox_group(lists::tensor_seed(op.seed, index), op.step, uint64_t(element >> 2));
    if (upper) {
      words.word[0] = words.word[2];
      words.word[1] = words.word[3];
    }
    const NormalPair pair = normal_pair(words.word[0], words.word[1]);
    drawn[v] = pair.cosine;
    drawn[v + 1] = pair.sine;
  }
#pragma unroll
  for (int v = 0; v < V; ++v) z[v] = T(odd ? drawn[v + 1] : drawn[v]);
}

template <class Op, class T>
__global__ void __launch_bounds__(kThreads) list_kernel(const ListParams<Op, Op::kStreams> __grid_constant__ params) {
  constexpr int V = 16 / sizeof(T), kStreams = Op::kStreams;
  __shared__ typename ListParams<Op, Op::kStreams>::Entry e;
  const Op& op = params.header.op;
  const auto scalars = op.template prepare<T>();
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const int64_t begin = int64_t(chunk - e.first_chunk) * kChunk - e.shift;
    const int64_t end = begin + kChunk < e.numel ? begin + kChunk : e.numel;
    for (int64_t i = begin + int64_t(threadIdx.x) * V; i < end; i += kThreads * V) {
      Raw raw[kStreams] = {};
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        if ((op.reads() >> s & 1u) == 0) continue;
        raw[s] = load_group<V>(stream_of(e, s), stream_dtype(e.dtypes, s), stream_aligned(e.aligned, s), i, e.numel);
      }
      T x[kStreams][V], z[V] = {};
#pragma unroll
      for (int s = 0; s < kStreams; ++s) decode_group<T, V>(stream_dtype(e.dtypes, s), raw[s], x[s]);
      if constexpr (Op::kNoise) {
        if (op.draw) draw_group<T, V>(op, e.index, i, z);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
        T values[kStreams];
#pragma unroll
        for (int s = 0; s < kStreams; ++s) values[s] = x[s][v];
        Op::element(scalars, z[v], values);
#pragma unroll
        for (int s = 0; s < kStreams; ++s) x[s][v] = values[s];
      }
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        if ((op.writes() >> s & 1u) == 0) continue;
        const DType dtype = stream_dtype(e.dtypes, s);
        store_group<V>(stream_of(e, s), dtype, stream_aligned(e.aligned, s), i, e.numel, encode_group<T, V>(dtype, x[s]));
      }
    }
  }
}

struct Clear {};

__global__ void __launch_bounds__(kThreads) clear_kernel(const ListParams<Clear, 1> __grid_constant__ params) {
  __shared__ ListParams<Clear, 1>::Entry e;
  for (uint32_t chunk = blockIdx.x; chunk < params.header.chunks; chunk += gridDim.x) {
    stage_entry(params, find_entry(params, chunk), e);
    const int64_t begin = int64_t(chunk - e.first_chunk) * kClearChunk - e.shift;
    const int64_t end = begin + kClearChunk < e.numel ? begin + kClearChunk : e.numel;
    for (int64_t i = begin + int64_t(threadIdx.x) * 16; i < end; i += kThreads * 16) {
      store_byte_group<16>(e.param, true, i, e.numel, Raw{{0, 0, 0, 0}});
    }
  }
}

template <class Op, class T>
cudaError_t run_typed(const lists::Call<Op>& call, const Context& context) {
  constexpr int V = 16 / sizeof(T);
  TableLaunch<ListParams<Op, Op::kStreams>> launch;
  launch.header().op = call.op;
  launch.reserve(call.tensors.size());
  for (size_t index = 0; index < call.tensors.size(); ++index) {
    const lists::Tensors& t = call.tensors[index];
    if (t.numel == 0 || (t.dtypes[0] == DType::kFloat64) != (sizeof(T) == 8)) continue;
    auto& e = launch.add();
    e.param = t.streams[0];
    e.grad = Op::kStreams > 1 ? t.streams[1] : nullptr;
    for (int s = 2; s < Op::kStreams; ++s) e.states[s - 2] = t.streams[s];
    e.numel = t.numel;
    e.index = uint32_t(index);
    for (int s = 0; s < Op::kStreams; ++s) {
      const auto phase = uint8_t(reinterpret_cast<uintptr_t>(t.streams[s]) / size_t(item_size(t.dtypes[s])) % V);
      if (s == 0) e.shift = phase;
      e.dtypes |= uint32_t(t.dtypes[s]) << (4 * s);
      e.aligned = uint16_t(e.aligned | (phase == e.shift ? 1u << s : 0u));
    }
    launch.add_chunks((t.numel + e.shift + kChunk - 1) / kChunk);
  }
  return launch_tables<list_kernel<Op, T>>(launch, context, BlockPerChunk{});
}

}  // namespace

template <class Op>
cudaError_t run_list(const lists::Call<Op>& call, const Context& context) {
  const cudaError_t error = run_typed<Op, float>(call, context);
  return error != cudaSuccess ? error : run_typed<Op, double>(call, context);
}

template cudaError_t run_list(const lists::Call<lists::Extrapolate>&, const Context&);
template cudaError_t run_list(const lists::Call<lists::Move>&, const Context&);

cudaError_t clear_list(const std::vector<Bytes>& tensors, const Context& context) {
  TableLaunch<ListParams<Clear, 1>> launch;
  launch.reserve(tensors.size());
  for (const Bytes& t : tensors) {
    if (t.size == 0) continue;
    auto& e = launch.add();
    e.param = t.data;
    e.numel = t.size;
    e.shift = uint8_t(reinterpret_cast<uintptr_t>(t.data) % 16);
    launch.add_chunks((t.size + e.shift + kClearChunk - 1) / kClearChunk);
  }
  return launch_tables<clear_kernel>(launch, context, BlockPerChunk{});
}

}  // namespace momentum::cuda
