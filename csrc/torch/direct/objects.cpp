#include "torch/direct/objects.h"

namespace momentum::ops::direct {
namespace {

constexpr ptrdiff_t kWord = sizeof(void*);
// Words of a dictionary and of a tensor that may be pointers to what is read next: keys and values; storage, autograd's
// data, the version counter.
constexpr ptrdiff_t kFirst = 2 * kWord, kDictEnd = 6 * kWord, kTensorEnd = 8 * kWord;
constexpr ptrdiff_t kDictLines = 4, kTensorLines = 3;

}  // namespace

Walk::Walk(const Environment& env, PyObject* list, ptrdiff_t count) : env_(env), items_(size_t(count)) {
  for (ptrdiff_t i = 0; i < count; ++i) items_[size_t(i)] = env.python->list_item(list, i);
}

void Walk::fetch_parts(const PyObject* object) const {
  if (is_plain(env_, object)) {
    fetch(word_at(object, env_.tensor_place), 0, kTensorLines);
  } else if (word_at(object, env_.type_place) == env_.dict_type) {
    for (ptrdiff_t place = kFirst; place < kDictEnd; place += kWord) fetch(word_at(object, place), 0, kDictLines);
  }
}

void Walk::fetch_parts_of_tensor(const PyObject* object) const {
  if (!is_plain(env_, object)) return;
  const void* tensor = word_at(object, env_.tensor_place);
  if (tensor == nullptr) return;
  for (ptrdiff_t place = kFirst; place < kTensorEnd; place += kWord) fetch(word_at(tensor, place), 0, 1);
}

}  // namespace momentum::ops::direct
