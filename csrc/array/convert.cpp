#include "array/convert.h"

#include "array/reader.h"

namespace py = pybind11;

namespace momentum::array {

PreparedConversion prepare_conversion(bool quantise, const py::dict& arguments) {
  Reader read(quantise ? "quantize" : "dequantize", arguments);
  Conversion c;
  c.quantise = quantise;
  const char* name = quantise ? "input" : "output";
  Array values = read.array(name, !quantise);
  c.dtype = read.storage(name, values, false);
  c.values = values.data;
  c.numel = values.numel;
  c.rows = values.rows();
  c.cols = values.cols();

  c.format.map = formats::CodeMap(read.integer("map", {1, formats::kCodeMaps - 1}));
  const int64_t block = read.integer("block", kAnyInteger);
  read.check_block("block", block);
  c.format.block = int(block);
  c.format.scaling = Scaling(read.integer("scaling", {0, 2}));
  if (quantise) {
    c.format.stochastic = read.integer("rounding", {0, 1}) == 1;
    c.seed = read.seed("seed");
    c.step = uint32_t(read.integer("step", {0, 4294967295.0}));
  }

  Array codes = read.array("codes", quantise), scales = read.array("scales", quantise);
  read.expect_codes("codes", codes, formats::code_bytes(c.format.map, c.numel));
  c.codes = codes.data;
  c.format.scale_dtype = read.scale_dtype("scales", scales, c.format);
  read.expect_vector("scales", scales, c.format.scale_dtype, scale_count(c.format, c.numel, c.rows, c.cols));
  c.scales = scales.data;
  read.check_overlap();
  return {c, read.device(), {std::move(values), std::move(codes), std::move(scales)}};
}

}  // namespace momentum::array
