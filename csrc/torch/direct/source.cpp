#include "torch/direct/source.h"

namespace momentum::ops::direct {

Source::Source(const Environment& environment, PyObject* arguments)
    : env_(environment), py_(*environment.python), arguments_(arguments), size_(py_.tuple_size(arguments)) {
  if (size_ < 0) throw Declined{};
}

PyObject* Source::next() {
  if (place_ == size_) throw Declined{};
  return py_.tuple_item(arguments_, place_++);
}

ptrdiff_t Source::size_of(PyObject* list) const {
  const ptrdiff_t size = py_.list_size(list);
  if (size < 0) throw Declined{};
  return size;
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
  PyObject* list = next();
  std::vector<double> values(size_t(size_of(list)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = as_number(py_.list_item(list, ptrdiff_t(i)));
  return values;
}

std::vector<int64_t> Source::ints() {
  PyObject* list = next();
  std::vector<int64_t> values(size_t(size_of(list)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = as_integer(py_.list_item(list, ptrdiff_t(i)));
  return values;
}

TensorInfos Source::tensors() {
  PyObject* list = next();
  const Walk items(env_, list, size_of(list));
  TensorInfos infos;
  infos.reserve(size_t(items.size()));
  for (ptrdiff_t i = 0; i < items.size(); ++i) infos.push_back(read(items[i]));
  return infos;
}

std::optional<TensorInfo> Source::optional_tensor() {
  PyObject* object = next();
  if (object == env_.none) return std::nullopt;
  return read(object);
}

TensorInfo Source::read(PyObject* object) const {
  if (!is_plain(env_, object)) throw Declined{};
  const TensorInfo info = describe(handle_of(env_, object));
  if (info.numel != 0 && info.data == nullptr) throw Declined{};
  // A lazily negated tensor is the imaginary part of a complex one: its stride is 2, which no check lets pass unless there is
  // a single element.
  if (info.numel == 1 && is_negated(object)) throw Declined{};
  return info;
}

// Whether the stored numbers are the negatives of those meant.
bool Source::is_negated(PyObject* object) const {
  PyObject* method = py_.attribute(object, "is_neg");
  if (method == nullptr) throw Declined{};
  PyObject* answer = py_.call(method, nullptr);
  py_.release(method);
  if (answer == nullptr) throw Declined{};
  const bool negated = py_.is_true(answer) != 0;
  py_.release(answer);
  return negated;
}

}  // namespace momentum::ops::direct
