#include "torch/direct/source.h"

namespace momentum::ops::direct {
namespace {

// DLPack's numbers.
enum : int32_t { kCpu = 1, kCuda = 2 };
enum : uint8_t { kInt = 0, kUnsigned = 1, kFloat = 2, kBFloat = 4, kBool = 6 };

// Torch's number of a dtype.
int32_t dtype_of(const DLTensor& t) {
  const auto code = [](uint8_t type, uint8_t bits) { return type * 256 + bits; };
  if (t.type_lanes != 1) throw Declined{};
  switch (code(t.type_code, t.type_bits)) {
    case code(kFloat, 32):
      return aoti_torch_dtype_float32();
    case code(kBFloat, 16):
      return aoti_torch_dtype_bfloat16();
    case code(kFloat, 16):
      return aoti_torch_dtype_float16();
    case code(kFloat, 64):
      return aoti_torch_dtype_float64();
    case code(kUnsigned, 8):
      return aoti_torch_dtype_uint8();
    case code(kInt, 8):
      return aoti_torch_dtype_int8();
    default:
      throw Declined{};
  }
}

int32_t device_type_of(const DLTensor& t) {
  if (t.device_type == kCpu) return aoti_torch_device_type_cpu();
  if (t.device_type == kCuda) return aoti_torch_device_type_cuda();
  throw Declined{};
}

}  // namespace

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
  const ptrdiff_t count = size_of(list);
  TensorInfos infos;
  infos.reserve(size_t(count));
  for (ptrdiff_t i = 0; i < count; ++i) infos.push_back(describe(py_.list_item(list, i)));
  return infos;
}

std::optional<TensorInfo> Source::optional_tensor() {
  PyObject* object = next();
  if (object == env_.none) return std::nullopt;
  return describe(object);
}

bool Source::is_plain(PyObject* object) const {
  PyObject* type = py_.type_of(object);
  const bool plain = type == env_.tensor_type || type == env_.parameter_type;
  py_.release(type);
  return plain;
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

TensorInfo Source::describe(PyObject* object) const {
  DLTensor t{};
  if (!is_plain(object) || env_.exchange->view(object, &t) != 0) throw Declined{};
  static const int32_t strided = aoti_torch_layout_strided();
  TensorInfo info;
  info.dtype = dtype_of(t);
  info.device_type = device_type_of(t);
  info.device_index = t.device_id;
  info.layout = strided;
  info.dim = t.ndim;
  info.sizes = t.shape;
  info.strides = t.strides;
  info.data = static_cast<char*>(t.data) + t.byte_offset;
  info.numel = 1;
  for (int64_t d = 0; d < info.dim; ++d) info.numel *= info.sizes[d];
  if (info.numel != 0 && t.data == nullptr) throw Declined{};
  // A lazily negated tensor is the imaginary part of a complex one: its stride is 2, which no check lets pass unless there is
  // a single element.
  if (info.numel == 1 && is_negated(object)) throw Declined{};
  return info;
}

}  // namespace momentum::ops::direct
