#include "torch/direct/source.h"

#include <algorithm>
#include <exception>

#include "torch/direct/ranges.h"

namespace momentum::ops::direct {
namespace {

// Throws Declined where the memory is not the tensor's.
TensorInfo described(AtenTensorHandle tensor) {
  const TensorInfo info = describe(tensor);
  if (info.numel != 0 && info.data == nullptr) throw Declined{};
  return info;
}

}  // namespace

Source::Source(const Environment& environment, PyObject* arguments, const Gradients* gradients)
    : env_(environment),
      py_(*environment.python),
      arguments_(arguments),
      gradients_(gradients),
      size_(py_.tuple_size(arguments)) {
  if (size_ < 0) throw Declined{};
}

PyObject* Source::next() {
  if (place_ == size_) throw Declined{};
  return py_.tuple_item(arguments_, place_++);
}

double Source::as_number(PyObject* object) const {
  const double value = py_.as_double(object);
  if (value == -1.0 && py_.error() != nullptr) throw Declined{};
  return value;
}

int64_t Source::as_integer(PyObject* object) const {
  const long long value = py_.as_integer(object);
  if (value == -1 && py_.error() != nullptr) throw Declined{};
  return value;
}

bool Source::boolean() {
  const int value = py_.is_true(next());
  if (value < 0) throw Declined{};
  return value != 0;
}

std::vector<double> Source::floats() {
  std::vector<double> values;
  for (PyObject* item : items_of(env_, next())) values.push_back(as_number(item));
  return values;
}

std::vector<int64_t> Source::ints() {
  std::vector<int64_t> values;
  for (PyObject* item : items_of(env_, next())) values.push_back(as_integer(item));
  return values;
}

TensorInfos Source::list(bool at_once) {
  PyObject* object = next();
  const bool held = object == env_.none && gradients_ != nullptr;
  List& list = lists_.emplace_back();
  if (!held) list.items = items_of(env_, object);
  TensorInfos infos(held ? gradients_->size() : list.items.size());
  list.infos = infos.data();
  list.size = int64_t(infos.size());
  list.at_once = at_once;
  return infos;
}

std::optional<TensorInfo> Source::optional_tensor() {
  PyObject* object = next();
  if (object == env_.none) return std::nullopt;
  return read(object);
}

TensorInfo Source::read(PyObject* object) const {
  if (!is_plain(env_, object)) throw Declined{};
  const TensorInfo info = described(handle_of(env_, object));
  // A lazily negated tensor is the imaginary part of a complex one: its stride is 2, which no check lets pass unless there is
  // a single element.
  if (info.numel == 1 && is_negated(env_, object)) throw Declined{};
  return info;
}

void Source::begin() const {
  for (const List& list : lists_) {
    const auto part = [&](int64_t begin, int64_t end) { read_part(list, begin, end); };
    in_ranges(list.at_once ? list.size : std::min(list.size, int64_t(1)), part);
  }
}

void Source::read(size_t count, const TensorBody& body) const {
  in_ranges(int64_t(count), [&](int64_t begin, int64_t end) {
    for (const List& list : lists_) {
      if (!list.at_once && list.size != 0) read_part(list, begin, end);
    }
    body(size_t(begin), size_t(end));
  });
}

void Source::finish() const {
  for (const List& list : lists_) {
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (list.infos[i].numel == 1 && is_negated(env_, list.items[i])) throw Declined{};  // as for a single tensor
    }
  }
}

void Source::read_part(const List& list, int64_t begin, int64_t end) const {
  if (list.items.empty()) {
    for (int64_t i = begin; i < end; ++i) list.infos[i] = described((*gradients_)[size_t(i)]);
    return;
  }
  const Walk walk(env_, list.items.data() + begin, end - begin);
  for (int64_t i = begin; i < end; ++i) {
    PyObject* object = walk[i - begin];
    if (!is_plain(env_, object)) throw Declined{};
    list.infos[i] = described(handle_of(env_, object));
  }
}

}  // namespace momentum::ops::direct
