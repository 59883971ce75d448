// The streams of one tensor as an entry of a table describes them.
#pragma once

#include <cstdint>

#include "core/call.h"
#include "cuda/entry.h"

namespace momentum::cuda {

struct StreamInfo {
  const void* data;
  DType dtype;
  int number;
  int code_bits = 0;  // of quantised states
};

// Dtypes, group width and alignment of the streams of one tensor. `anchored`: groups start at element 0.
template <class EntryBaseType>
void describe_streams(const StreamInfo* streams, int count, bool anchored, int float_width, bool may_widen, EntryBaseType& e) {
  e.dtypes = 0;
  e.aligned = 0;
  bool wide = may_widen;
  for (int s = 0; s < count; ++s) wide = wide && (streams[s].data == nullptr || item_size(streams[s].dtype) == 2);
  const auto is_codes = [&](const StreamInfo& s) { return s.dtype == DType::kCodes; };
  const int width = wide ? 8 : float_width;
  // Elements until the stream reaches a group border; -1 where no element does.
  const auto phase = [&](const StreamInfo& s) {
    const int size = item_size(s.dtype);
    const auto address = reinterpret_cast<uintptr_t>(s.data);
    if (address % size != 0) return -1;
    return int((-(address / size)) % width);
  };
  int head = 0;
  if (!anchored) {
    int votes[16] = {};
    for (int s = 0; s < count; ++s) {
      if (streams[s].data != nullptr && !is_codes(streams[s]) && phase(streams[s]) >= 0) ++votes[phase(streams[s])];
    }
    for (int h = 1; h < width; ++h) head = votes[h] > votes[head] ? h : head;
  }
  for (int s = 0; s < count; ++s) {
    if (streams[s].data == nullptr) continue;
    e.dtypes |= uint32_t(streams[s].dtype) << (4 * streams[s].number);
    if (is_codes(streams[s])) {  // in groups of four from element 0
      const auto bytes = uintptr_t(kBlockGroup * streams[s].code_bits / 8);
      if (reinterpret_cast<uintptr_t>(streams[s].data) % bytes == 0) e.aligned |= uint16_t(1u << streams[s].number);
      continue;
    }
    if (phase(streams[s]) == head) e.aligned |= uint16_t(1u << streams[s].number);
  }
  e.wide = wide;
  e.shift = uint8_t((width - head) % width);
}

inline int list_streams(const TensorArgs& t, const CommonArgs& common, int states, bool residual, bool ema, StreamInfo* out) {
  int count = 0;
  out[count++] = {t.param, t.param_dtype, kParamStream};
  out[count++] = {t.grad, t.grad_dtype, kGradStream};
  for (int k = 0; k < states; ++k) {
    out[count++] = {t.states[k], t.state_dtypes[k], kFirstState + k, formats::code_bits(common.state_formats[k].map)};
  }
  if (residual) out[count++] = {t.residual, t.residual_dtype, kResidualStream};
  if (ema) out[count++] = {t.ema, t.ema_dtype, kEmaStream};
  return count;
}

}  // namespace momentum::cuda
