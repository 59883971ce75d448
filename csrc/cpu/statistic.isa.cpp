// The plain reductions, for one instruction set.
#include "core/statistic.h"

#include "cpu/table.h"

namespace momentum::cpu::MOMENTUM_ISA {

template <>
const Kernels& kernels<rules::Statistic>() {
  static constexpr Kernels table = make_kernels<rules::Statistic>();
  return table;
}

}  // namespace momentum::cpu::MOMENTUM_ISA
