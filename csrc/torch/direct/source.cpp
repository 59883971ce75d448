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

Source::Source(const Environment& environment, PyObject* arguments, const Supply& supply)
    : env_(environment), py_(*environment.python), arguments_(arguments), supply_(supply), size_(py_.tuple_size(arguments)) {
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
  List& list = lists_.emplace_back(object == env_.none ? supplied() : List{items_of(env_, object)});
  TensorInfos infos(list.gradients ? supply_.gradients->size() : list.items.size());
  list.infos = infos.data();
  list.size = int64_t(infos.size());
  list.at_once = at_once;
  return infos;
}

Source::List Source::supplied() {
  if (supplied_ == supply_.lists.size()) throw Declined{};
  List list;
  const std::vector<size_t>& columns = supply_.lists[supplied_++];
  list.gradients = columns.empty();
  for (const size_t column : columns) {
    const std::vector<PyObject*>& items = supply_.states->columns()[column];
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  return list;
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
  if (supply_.gradients != nullptr) supply_.gradients->find(0, std::min(int64_t(supply_.gradients->size()), int64_t(1)));
  for (const List& list : lists_) {
    const auto part = [&](int64_t begin, int64_t end) { read_part(list, begin, end); };
    in_ranges(list.at_once ? list.size : std::min(list.size, int64_t(1)), part);
  }
}

void Source::read(size_t count, const TensorBody& body) const {
  in_ranges(int64_t(count), [&](int64_t begin, int64_t end) {
    if (supply_.gradients != nullptr) supply_.gradients->find(begin, end);
    if (supply_.states != nullptr) supply_.states->check_steps(begin, end);
    for (const List& list : lists_) {
      if (!list.at_once && list.size != 0) read_part(list, begin, end);
    }
    body(size_t(begin), size_t(end));
  });
}

void Source::finish() const {
  if (!has_single_) return;
  for (const List& list : lists_) {
    for (size_t i = 0; i < size_t(list.size); ++i) {
      if (list.infos[i].numel != 1) continue;  // as for a single tensor
      if (list.gradients) {
        supply_.gradients->check_meaning(i);
      } else if (is_negated(env_, list.items[i])) {
        throw Declined{};
      }
    }
  }
}

void Source::read_part(const List& list, int64_t begin, int64_t end) const {
  bool has_single = false;
  const auto keep = [&](int64_t i, AtenTensorHandle tensor) {
    list.infos[i] = described(tensor);
    has_single = has_single || list.infos[i].numel == 1;
  };
  if (list.gradients) {
    for (int64_t i = begin; i < end; ++i) keep(i, (*supply_.gradients)[size_t(i)]);
  } else {
    const Walk walk(env_, list.items.data() + begin, end - begin);
    for (int64_t i = begin; i < end; ++i) {
      PyObject* object = walk[i - begin];
      if (!is_plain(env_, object)) throw Declined{};
      keep(i, handle_of(env_, object));
    }
  }
  if (has_single) has_single_ = true;
}

}  // namespace momentum::ops::direct
