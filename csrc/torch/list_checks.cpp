#include "torch/list_checks.h"

namespace momentum::ops {

Device device_of(const TensorList& list) {
  if (list.size() == 0) return {};
  const TensorInfo first = describe(list[0]);
  return {first.device_type, first.device_index};
}

void add_stream(const Checker& check, const char* argument, const TensorList& list, const TensorList& params, int stream,
                bool written, std::vector<lists::Tensors>& tensors, OverlapCheck& overlap) {
  check.length(argument, list.size(), params.size(), "one per param");
  for (size_t i = 0; i < list.size(); ++i) {
    const auto index = int64_t(i);
    lists::Tensors& t = tensors[i];
    const TensorInfo info = describe(list[i]), param = describe(params[i]);
    check.strided(argument, index, info);
    check.device(argument, index, info);
    if (stream == 0) {
      check.dense(argument, index, info);
      t.numel = info.numel;
    } else {
      check.like_param(argument, index, info, param);
    }
    t.dtypes[stream] = check.dtype(argument, index, info, stream == 0 || t.dtypes[0] == DType::kFloat64);
    t.streams[stream] = info.data;
    overlap.add(info.data, info.numel * item_size(t.dtypes[stream]), argument, index, written);
  }
}

}  // namespace momentum::ops
