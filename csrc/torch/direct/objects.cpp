#include "torch/direct/objects.h"

namespace momentum::ops::direct {
namespace {

constexpr ptrdiff_t kWord = sizeof(void*);
// Words of a dictionary and of a tensor that may be pointers to what is read next: keys and values; storage, autograd's
// data, the version counter.
constexpr ptrdiff_t kFirst = 2 * kWord, kDictEnd = 6 * kWord, kTensorEnd = 8 * kWord;
constexpr ptrdiff_t kDictLines = 4;

}  // namespace

bool is_negated(const Environment& env, PyObject* object) {
  const Python& python = *env.python;
  PyObject* method = python.attribute(object, "is_neg");
  if (method == nullptr) throw Declined{};
  PyObject* answer = python.call(method, nullptr);
  python.release(method);
  if (answer == nullptr) throw Declined{};
  const bool negated = python.is_true(answer) != 0;
  python.release(answer);
  return negated;
}

std::vector<PyObject*> items_of(const Environment& env, PyObject* list) {
  const ptrdiff_t count = env.python->list_size(list);
  if (count < 0) throw Declined{};
  std::vector<PyObject*> items(static_cast<size_t>(count));
  for (ptrdiff_t i = 0; i < count; ++i) items[size_t(i)] = env.python->list_item(list, i);
  return items;
}

void fetch_parts_of_tensor(const void* implementation) {
  if (implementation == nullptr) return;
  for (ptrdiff_t place = kFirst; place < kTensorEnd; place += kWord) fetch(word_at(implementation, place), 1);
}

void Walk::fetch_parts(const PyObject* object) const {
  if (is_plain(env_, object)) {
    fetch(word_at(object, env_.tensor_place), kTensorLines);
  } else if (word_at(object, env_.type_place) == env_.dict_type) {
    for (ptrdiff_t place = kFirst; place < kDictEnd; place += kWord) fetch(word_at(object, place), kDictLines);
  }
}

}  // namespace momentum::ops::direct
