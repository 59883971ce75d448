#include "array/reader.h"

#include <algorithm>
#include <cmath>

namespace py = pybind11;

namespace momentum::array {
namespace {

std::string label(const std::string& name, size_t i) { return name + "[" + std::to_string(i) + "]"; }

const char* device_name(int type) { return type == dlpack::kCpu ? "the CPU" : "CUDA device "; }

bool is_sequence(py::handle value) { return PySequence_Check(value.ptr()) != 0 && !py::isinstance<py::str>(value); }

}  // namespace

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

int64_t Reader::integer(const std::string& name, Range range) const {
  if (PyIndex_Check(argument(name).ptr()) == 0) {
    refuse(name, ": expected an integer, got ", std::string(py::repr(argument(name))));
  }
  return int64_t(checked(name, argument(name), range));
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

std::vector<uint64_t> Reader::seeds(const std::string& name, int64_t count) const {
  const py::handle value = argument(name);
  py::list list = is_sequence(value) ? py::list(py::reinterpret_borrow<py::object>(value)) : py::list();
  if (!is_sequence(value)) list.append(value);
  if (list.size() != 1 && int64_t(list.size()) != count) {
    refuse(name, ": expected 1 integer or one for each of the ", count, " params, got ", list.size());
  }
  std::vector<uint64_t> result(count);
  for (int64_t i = 0; i < count; ++i) {
    const py::object seed = list[list.size() == 1 ? 0 : size_t(i)];
    if (PyIndex_Check(seed.ptr()) == 0) refuse(name, ": expected integers, got ", std::string(py::repr(seed)));
    result[i] = PyLong_AsUnsignedLongLongMask(py::int_(seed).ptr());
  }
  return result;
}

std::vector<Array> Reader::arrays(const std::string& name, int64_t count, bool optional, bool written) {
  if (!is_sequence(argument(name))) refuse(name, ": expected a list of arrays");
  const auto list = py::reinterpret_borrow<py::sequence>(argument(name));
  if (int64_t(list.size()) != count && !(optional && list.size() == 0)) {
    refuse(name, ": expected ", count, optional ? " arrays or none" : " arrays", ", one for each of params, got ", list.size());
  }
  std::vector<Array> result;
  for (size_t i = 0; i < list.size(); ++i) result.push_back(take(label(name, i), py::object(list[i]), written));
  return result;
}

Array Reader::array(const std::string& name, bool written) { return take(name, argument(name), written); }

Array Reader::take(const std::string& name, py::handle object, bool written) {
  Array array = borrow(object, std::string("momentum.array.") + rule_ + "_: " + name);
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
