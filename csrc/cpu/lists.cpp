#include "cpu/lists.h"

#include <algorithm>
#include <cstring>

#include "cpu/isa.h"

namespace momentum::cpu {
namespace {

constexpr int64_t kUnit = 4096;  // elements, or bytes to clear
constexpr int64_t kGrain = 16;   // units worth waking a thread for

// Calls go(index, begin, end) for pieces of the tensors, whose sizes are given, in parallel.
template <class Go>
void over_pieces(const std::vector<int64_t>& sizes, ParallelFor parallel_for, Go&& go) {
  std::vector<int64_t> units(1, 0);
  for (const int64_t size : sizes) units.push_back(units.back() + (size + kUnit - 1) / kUnit);
  if (units.back() == 0) return;
  auto body = [&](int64_t begin, int64_t end) {
    auto i = std::upper_bound(units.begin(), units.end(), begin) - units.begin() - 1;
    for (int64_t unit = begin; unit < end; ++i) {
      const int64_t last = std::min(end, units[size_t(i) + 1]), first = units[size_t(i)];
      if (unit < last) go(int64_t(i), (unit - first) * kUnit, std::min((last - first) * kUnit, sizes[size_t(i)]));
      unit = last;
    }
  };
  parallel_for(
      0, units.back(), kGrain,
      [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(body)*>(context))(begin, end); }, &body);
}

}  // namespace

template <class Op>
void run_list(const lists::Call<Op>& call, ParallelFor parallel_for) {
  auto range = baseline::list_range<Op>;
#if defined(__x86_64__)
  if (isa() == Isa::kAvx512) range = avx512::list_range<Op>;
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
