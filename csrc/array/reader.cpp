#include "array/reader.h"

#include <algorithm>
#include <cmath>

namespace py = pybind11;

namespace momentum::array {
namespace {

const char* device_name(int type) { return type == dlpack::kCpu ? "the CPU" : "CUDA device "; }

bool is_sequence(py::handle value) { return PySequence_Check(value.ptr()) != 0 && !py::isinstance<py::str>(value); }

}  // namespace

std::string label(const std::string& name, size_t i) { return name + "[" + std::to_string(i) + "]"; }

double Reader::checked(const std::string& name, py::handle value, Range range) const {
  if (PyFloat_Check(value.ptr()) == 0 && PyNumber_Check(value.ptr()) == 0) {
    refuse(name, ": expected a number, got ", std::string(py::str(py::type::of(value).attr("__name__"))));
  }
  const double number = value.cast<double>();
  const bool inside = number >= range.low && (range.high_open ? number < range.high : number <= range.high);
  if (!inside || !std::isfinite(number)) {
    refuse(name, ": expected a number in [", range.low, ", ", range.high, range.high_open ? ")" : "]", ", got ", number);
  }
  return number;
}

double Reader::number(const std::string& name, Range range) const { return checked(name, argument(name), range); }

int64_t Reader::integer(const std::string& name, Range range) const { return checked_integer(name, argument(name), range); }

int64_t Reader::checked_integer(const std::string& name, py::handle value, Range range) const {
  if (PyIndex_Check(value.ptr()) == 0) refuse(name, ": expected an integer, got ", std::string(py::repr(value)));
  return int64_t(checked(name, value, range));
}

std::vector<int64_t> Reader::integers(const std::string& name) const {
  if (!is_sequence(argument(name))) refuse(name, ": expected a list of integers");
  const auto list = py::reinterpret_borrow<py::sequence>(argument(name));
  std::vector<int64_t> result(list.size());
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = checked_integer(label(name, i), py::object(list[i]), kAnyInteger);
  }
  return result;
}

std::vector<double> Reader::numbers(const std::string& name, int64_t count, Range range) const {
  const py::handle value = argument(name);
  if (!is_sequence(value)) return std::vector<double>(count, checked(name, value, range));
  const auto list = py::reinterpret_borrow<py::sequence>(value);
  if (list.size() != 1 && int64_t(list.size()) != count) {
    refuse(name, ": expected 1 number or one for each of the ", count, " params, got ", list.size());
  }
  std::vector<double> result(count);
  for (int64_t i = 0; i < count; ++i) {
    const size_t k = list.size() == 1 ? 0 : size_t(i);
    result[i] = checked(label(name, k), py::object(list[k]), range);
  }
  return result;
}

uint64_t Reader::seed_of(const std::string& name, py::handle value) const {
  if (PyIndex_Check(value.ptr()) == 0) refuse(name, ": expected an integer, got ", std::string(py::repr(value)));
  return PyLong_AsUnsignedLongLongMask(py::int_(py::reinterpret_borrow<py::object>(value)).ptr());
}

uint64_t Reader::seed(const std::string& name) const { return seed_of(name, argument(name)); }

std::vector<uint64_t> Reader::seeds(const std::string& name, int64_t count) const {
  const py::handle value = argument(name);
  if (!is_sequence(value)) return std::vector<uint64_t>(count, seed_of(name, value));
  const auto list = py::reinterpret_borrow<py::sequence>(value);
  if (list.size() != 1 && int64_t(list.size()) != count) {
    refuse(name, ": expected 1 integer or one for each of the ", count, " params, got ", list.size());
  }
  std::vector<uint64_t> result(count);
  for (int64_t i = 0; i < count; ++i) {
    const size_t k = list.size() == 1 ? 0 : size_t(i);
    result[i] = seed_of(label(name, k), py::object(list[k]));
  }
  return result;
}

void Reader::check_block(const std::string& name, int64_t block) const {
  if (!is_block_size(block)) refuse(name, ": expected a block of 64, 128 or 256 elements, got ", block);
}

std::vector<Array> Reader::arrays(const std::string& name, int64_t count, bool optional, bool written, const char* unit) {
  if (!is_sequence(argument(name))) refuse(name, ": expected a list of arrays");
  const auto list = py::reinterpret_borrow<py::sequence>(argument(name));
  if (int64_t(list.size()) != count && !(optional && list.size() == 0)) {
    refuse(name, ": expected ", count, optional ? " arrays or none" : " arrays", ", ", unit, ", got ", list.size());
  }
  std::vector<Array> result;
  for (size_t i = 0; i < list.size(); ++i) result.push_back(take(label(name, i), py::object(list[i]), written));
  return result;
}

Array Reader::array(const std::string& name, bool written) { return take(name, argument(name), written); }

Array Reader::take(const std::string& name, py::handle object, bool written) {
  Array array = borrow(object, std::string("momentum.array.") + op_ + "_: " + name);
  if (!any_) device_ = array.device;
  any_ = true;
  if (array.device.type != device_.type || array.device.id != device_.id) {
    const auto where = [](dlpack::Device device) {
      return device_name(device.type) + (device.type == dlpack::kCpu ? std::string() : std::to_string(device.id));
    };
    refuse(name, ": expected an array on ", where(device_), " as the first one, got ", where(array.device));
  }
  if (!array.contiguous) refuse(name, ": expected a C-contiguous array");
  if (written && array.read_only) refuse(name, ": is written, but the array is read-only");
  const auto begin = reinterpret_cast<uintptr_t>(array.data);
  if (array.numel > 0) taken_.push_back({begin, begin + uintptr_t(array.numel * array.dtype.bits / 8), name, written});
  return array;
}

DType Reader::storage(const std::string& name, const Array& array, bool allow_float64) const {
  const auto dtype = storage_dtype(array.dtype);
  if (dtype && (allow_float64 || *dtype != DType::kFloat64)) return *dtype;
  refuse(name, ": expected float32, bfloat16", allow_float64 ? ", float16 or float64" : " or float16", ", got ",
         dtype_name(array.dtype));
}

DType Reader::scale_dtype(const std::string& name, const Array& scales, const StateFormat& format) const {
  const DType dtype = storage(name, scales, false);
  if (format.scaling == Scaling::kBlock || dtype == DType::kFloat32) return dtype;
  refuse(name, ": expected float32, as for all scales of rows and columns, got ", dtype_name(scales.dtype));
}

void Reader::expect_vector(const std::string& name, const Array& array, DType dtype, int64_t numel) const {
  if (storage_dtype(array.dtype) == dtype && array.numel == numel) return;
  refuse(name, ": expected ", momentum::name(dtype), " with ", numel, " elements, got ", dtype_name(array.dtype), " with ",
         array.numel);
}

void Reader::expect_codes(const std::string& name, const Array& array, int64_t bytes) const {
  if (is_byte(array.dtype, dlpack::kUInt) && array.numel == bytes) return;
  refuse(name, ": expected codes, uint8 with ", bytes, " elements, got ", dtype_name(array.dtype), " with ", array.numel);
}

void Reader::check_overlap() const {
  std::vector<Taken> sorted = taken_;
  std::sort(sorted.begin(), sorted.end(), [](const Taken& a, const Taken& b) { return a.begin < b.begin; });
  // Those that reach furthest so far: of all, and of the written ones.
  const Taken* any = nullptr;
  const Taken* written = nullptr;
  for (const Taken& next : sorted) {
    const Taken* before = next.written ? any : written;
    if (before != nullptr && before->end > next.begin) refuse(before->name, " and ", next.name, " share memory");
    if (any == nullptr || next.end > any->end) any = &next;
    if (next.written && (written == nullptr || next.end > written->end)) written = &next;
  }
}

}  // namespace momentum::array
