#include "torch/device/ot.h"

namespace momentum::ops::backend {

void solve_transport(const char* op, const ot::Batch& batch, int32_t device_index) {
  solve_transport_on_device(op, batch, device_index);
}

}  // namespace momentum::ops::backend
