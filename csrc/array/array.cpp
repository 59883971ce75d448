#include "array/array.h"

namespace py = pybind11;

namespace momentum::array {
namespace {

// Asks for version 1, which can say that an array is read-only; older producers do not know the argument.
py::object export_capsule(py::handle object, bool on_cuda) {
  const py::object method = object.attr("__dlpack__");
  // -1: no synchronisation. The caller names the stream that the arrays are ready on.
  const py::dict stream = on_cuda ? py::dict(py::arg("stream") = -1) : py::dict();
  try {
    return method(**stream, py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return method(**stream);
  }
}

Array view(const dlpack::Tensor& tensor, bool read_only, py::object capsule) {
  Array array;
  array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.device = tensor.device;
  array.dtype = tensor.dtype;
  array.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  array.read_only = read_only;
  array.capsule = std::move(capsule);
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    const bool irrelevant = tensor.strides == nullptr || tensor.shape[i] == 1;
    array.contiguous &= irrelevant || tensor.strides[i] == array.numel;
    array.numel *= tensor.shape[i];
  }
  array.contiguous |= array.numel == 0;
  return array;
}

}  // namespace

Array borrow(py::handle object, const std::string& name) {
  if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__")) {
    throw py::type_error(name + ": expected an array with __dlpack__, not " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  }
  const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  if (device.first != dlpack::kCpu && device.first != dlpack::kCuda) {
    throw py::type_error(name + ": expected an array on the CPU or a CUDA device, not on DLPack device type " +
                         std::to_string(device.first));
  }
  py::object capsule = export_capsule(object, device.first == dlpack::kCuda);
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* managed =
        static_cast<dlpack::ManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    const bool read_only = (managed->flags & dlpack::kReadOnly) != 0;
    return view(managed->tensor, read_only, std::move(capsule));
  }
  const auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  return view(managed->tensor, false, std::move(capsule));
}

int64_t Array::cols() const {
  int64_t count = 1;
  for (size_t d = 1; d < shape.size(); ++d) count *= shape[d];
  return count;
}

std::optional<DType> storage_dtype(dlpack::DataType dtype) {
  if (dtype.lanes != 1) return std::nullopt;
  if (dtype.code == dlpack::kBFloat && dtype.bits == 16) return DType::kBFloat16;
  if (dtype.code != dlpack::kFloat) return std::nullopt;
  switch (dtype.bits) {
    case 16:
      return DType::kFloat16;
    case 32:
      return DType::kFloat32;
    case 64:
      return DType::kFloat64;
    default:
      return std::nullopt;
  }
}

bool is_byte(dlpack::DataType dtype, dlpack::TypeCode code) {
  return dtype.code == code && dtype.bits == 8 && dtype.lanes == 1;
}

std::string dtype_name(dlpack::DataType dtype) {
  const char* kind = nullptr;
  switch (dtype.code) {
    case dlpack::kInt:
      kind = "int";
      break;
    case dlpack::kUInt:
      kind = "uint";
      break;
    case dlpack::kFloat:
      kind = "float";
      break;
    case dlpack::kBFloat:
      kind = "bfloat";
      break;
    case dlpack::kComplex:
      kind = "complex";
      break;
    case dlpack::kBool:
      kind = "bool";
      break;
    default:
      return "a dtype of DLPack code " + std::to_string(dtype.code);
  }
  return kind + std::to_string(dtype.bits) + (dtype.lanes == 1 ? "" : "x" + std::to_string(dtype.lanes));
}

std::string shape_name(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace momentum::array
