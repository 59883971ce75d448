#include "cpu/lists.h"

#include <cstring>

#include "cpu/isa.h"
#include "cpu/pieces.h"

namespace momentum::cpu {
template <class Op>
void run_list(const lists::Call<Op>& call, ParallelFor parallel_for) {
  auto range = baseline::list_range<Op>;
#if defined(__x86_64__)
  if (isa() >= Isa::kAvx512) range = avx512::list_range<Op>;
  if (isa() == Isa::kAvx2) range = avx2::list_range<Op>;
#endif
  std::vector<int64_t> sizes;
  for (const lists::Tensors& t : call.tensors) sizes.push_back(t.numel);
  over_pieces(sizes, parallel_for, [&](int64_t index, int64_t begin, int64_t end) { range(call, index, begin, end); });
}

template void run_list(const lists::Call<lists::Extrapolate>&, ParallelFor);
template void run_list(const lists::Call<lists::Move>&, ParallelFor);

void clear_list(const std::vector<Bytes>& tensors, ParallelFor parallel_for) {
  std::vector<int64_t> sizes;
  for (const Bytes& t : tensors) sizes.push_back(t.size);
  over_pieces(sizes, parallel_for, [&](int64_t index, int64_t begin, int64_t end) {
    std::memset(static_cast<char*>(tensors[size_t(index)].data) + begin, 0, size_t(end - begin));
  });
}

}  // namespace momentum::cpu
