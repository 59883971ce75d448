"""Quantisation of tensors in blocks: what optimizers keep their states in, and the same conversions on their own."""

from momentum.enums import CodeMap, Scaling
from momentum.quant.convert import Quantized, dequantize, quantize
from momentum.quant.formats import FORMATS, StateFormat, table

__all__ = ["FORMATS", "CodeMap", "Quantized", "Scaling", "StateFormat", "dequantize", "quantize", "table"]
