// Vectors whose new elements are left as the memory is, for whoever writes all of them anyhow: several threads, say, each its
// own part. Filling a large vector first takes one thread about as long as what follows takes all of them.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace momentum {

template <class T>
struct LeftAsIs : std::allocator<T> {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

  template <class U>
  struct rebind {
    using other = LeftAsIs<U>;
  };

  template <class U>
  void construct(U*) noexcept {}
  template <class U, class... Args>
    requires(sizeof...(Args) > 0)
  void construct(U* place, Args&&... args) {
    ::new (static_cast<void*>(place)) U(std::forward<Args>(args)...);
  }
};

// `resize` and the constructor from a size leave elements as they are; `push_back` and `emplace_back` of a value do not.
template <class T>
using VectorLeftAsIs = std::vector<T, LeftAsIs<T>>;

}  // namespace momentum
