"""Quantising a tensor and reading it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from momentum import _ops
from momentum.quant.formats import FORMATS, StateFormat


@dataclass(frozen=True)
class Quantized:
    """A quantised tensor.

    Attributes
    ----------
    codes
        uint8, one-dimensional: one byte per element, or two elements per byte with the first in the lower half.
    scales
        One-dimensional, of the format's ``scale_dtype``: one per block; or one per row (and tile), then one per column.
    format
        What the codes mean.
    shape
        Of the tensor.
    """

    codes: Tensor
    scales: Tensor
    format: StateFormat
    shape: torch.Size

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the tensor, contiguous, in `dtype` (float32, bfloat16 or float16)."""
        return dequantize(self.codes, self.scales, self.format, self.shape, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scales.nbytes


def quantize(input: Tensor, format: StateFormat | str, *, seed: int = 0, step: int = 0) -> Quantized:
    """Quantise a tensor in blocks of consecutive elements.

    Parameters
    ----------
    input
        float32, bfloat16 or float16, of any shape and number of elements, on the CPU or a GPU.
    format
        A format, or the name of one in :data:`FORMATS`, which then is that of numbers with a sign.
    seed, step
        Stochastic rounding draws the Philox words of (seed, step, element).

    Returns
    -------
    Quantized
        In the order of the elements of a contiguous tensor.

    Raises
    ------
    RuntimeError
        When the dtype is not supported.
    ValueError
        When the name of the format is unknown.

    Examples
    --------
    >>> import torch
    >>> from momentum.quant import quantize
    >>> q = quantize(torch.tensor([0.5, -1.0, 0.25]), "int8")
    >>> q.dequantize()
    tensor([ 0.5008, -0.9930,  0.2477])
    """
    chosen = named_format(format)
    input = input.detach().contiguous()
    codes = torch.empty(chosen.code_bytes(input.numel()), dtype=torch.uint8, device=input.device)
    scales = torch.empty(chosen.scale_count(input.shape), dtype=chosen.scale_dtype, device=input.device)
    kind, block, rounding, scaling = chosen.op_numbers()
    numbers = {"map": kind, "block": block, "rounding": rounding, "scaling": scaling}
    _ops.call("quantize_", input, codes, scales, **numbers, seed=seed, step=step)
    return Quantized(codes, scales, chosen, input.shape)


def dequantize(
    codes: Tensor,
    scales: Tensor,
    format: StateFormat | str,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the tensor that `codes` and `scales` stand for.

    Parameters
    ----------
    codes, scales, format
        As in :class:`Quantized`.
    shape
        Of the result.
    dtype
        Of the result: float32, bfloat16 or float16.

    Raises
    ------
    RuntimeError
        When the lengths of codes or scales do not fit the shape and the format.
    """
    chosen = named_format(format)
    output = torch.empty(shape, dtype=dtype, device=codes.device)
    kind, block, scaling = chosen.stored_numbers()
    _ops.call("dequantize_", codes, scales, output, map=kind, block=block, scaling=scaling)
    return output


def named_format(value: StateFormat | str, *, unsigned: bool = False) -> StateFormat:
    """Return a format that may be given by name."""
    if isinstance(value, StateFormat):
        return value
    if value in FORMATS:
        return FORMATS[value][unsigned]
    raise ValueError(f"format must be a StateFormat or one of {', '.join(map(repr, FORMATS))}, got {value!r}")
