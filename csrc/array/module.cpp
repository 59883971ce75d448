// The Python module momentum._array.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "array/call.h"
#include "array/convert.h"
#include "array/cuda.h"
#include "array/parallel.h"
#include "array/rule.h"
#include "cpu/convert.h"

namespace py = pybind11;

namespace momentum::array {

std::vector<Rule>& rules() {
  static std::vector<Rule> all;
  return all;
}

namespace {

py::object default_value(const HyperInfo& hyper) {
  switch (hyper.kind) {
    case HyperKind::kFloat:
      return py::float_(hyper.value);
    case HyperKind::kInt:
      return py::int_(int64_t(hyper.value));
    case HyperKind::kBool:
      return py::bool_(hyper.value != 0);
  }
  throw std::logic_error("unknown kind of hyper-parameter");
}

// Name, states as (name, optional), hyper-parameters as (name, default, may be an array), number of persistent scalars.
py::list describe() {
  py::list result;
  for (const Rule& rule : rules()) {
    py::list states, hypers;
    for (const StateInfo& state : rule.states) states.append(py::make_tuple(state.name, state.optional));
    for (const HyperInfo& hyper : rule.hypers) hypers.append(py::make_tuple(hyper.name, default_value(hyper), hyper.tensor));
    result.append(py::make_tuple(rule.name, states, hypers, rule.scalars));
  }
  return result;
}

// Runs a checked call where its arrays are, without the interpreter lock; `op` as for Reader.
template <class OnCpu, class OnCuda>
void run(const std::string& op, dlpack::Device device, std::optional<uintptr_t> stream, OnCpu on_cpu, OnCuda on_cuda) {
  const bool is_cpu = device.type != dlpack::kCuda;
  if (is_cpu == stream.has_value()) {
    const char* problem = is_cpu ? "_: stream: given, but the arrays are on the CPU" : "_: stream: CUDA arrays need one";
    throw py::value_error("momentum.array." + op + problem);
  }
  const py::gil_scoped_release released;
  is_cpu ? on_cpu() : on_cuda(*stream);
}

void step(const std::string& name, const py::dict& arguments, std::optional<uintptr_t> stream) {
  for (const Rule& rule : rules()) {
    if (rule.name != name) continue;
    const PreparedCall call = prepare(rule, arguments);
    run(
        name, call.device, stream, [&] { rule.run_on_cpu(call.step); },
        [&](uintptr_t queue) { run_on_cuda(rule, call, queue); });
    return;
  }
  throw py::value_error("momentum.array: no rule named " + name);
}

void convert(bool quantise, const py::dict& arguments, std::optional<uintptr_t> stream) {
  const PreparedConversion call = prepare_conversion(quantise, arguments);
  run(
      quantise ? "quantize" : "dequantize", call.device, stream, [&] { cpu::run_conversion(call.conversion, parallel_for); },
      [&](uintptr_t queue) { run_on_cuda(call, queue); });
}

}  // namespace
}  // namespace momentum::array

PYBIND11_MODULE(_array, m) {
  m.def("rules", &momentum::array::describe);
  m.def("step", &momentum::array::step);
  m.def("convert", &momentum::array::convert);
  m.def("set_num_threads", &momentum::array::set_num_threads);
  m.def("get_num_threads", &momentum::array::get_num_threads);
}
