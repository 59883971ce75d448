// The sums behind the perpendicular part of gradients, for one instruction set.
#include "core/perpendicular.h"

#include "cpu/table.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <>
const Kernels& kernels<rules::Perpendicular>() {
  static constexpr Kernels table = make_kernels<rules::Perpendicular>();
  return table;
}

}  // namespace momentum::cpu::MOMENTUM_ISA
