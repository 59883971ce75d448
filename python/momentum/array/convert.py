"""Quantising an array and reading it back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from momentum import _array
from momentum._formats import MAPS, CodeFormat


def quantize_(
    input: Any,
    codes: Any,
    scales: Any,
    *,
    map: int,
    block: int,
    scaling: int = 0,
    rounding: int = 0,
    seed: int = 0,
    step: int = 0,
    stream: int | None = None,
) -> None:
    """Quantise an array into arrays that are given: ``torch.ops.momentum.quantize_`` on anything with ``__dlpack__``.

    Parameters
    ----------
    input
        float32, bfloat16 or float16, C-contiguous.
    codes
        uint8, written: one byte per element, or two elements per byte with the first in the lower half.
    scales
        float32, bfloat16 or float16, written: one per block; or, always float32, one per row (and tile), then one per column.
    map
        A :class:`~momentum.enums.CodeMap`, not ``NONE``.
    block
        Elements per scale: 64, 128 or 256.
    scaling
        A :class:`~momentum.enums.Scaling`. Default: blocks.
    rounding
        A :class:`~momentum.enums.Rounding`. Default: to the nearest code.
    seed, step
        Stochastic rounding draws the Philox words of (seed, step, element).
    stream
        As for the steps: CUDA arrays need one.

    Raises
    ------
    TypeError
        When an argument is no array.
    ValueError
        When a dtype, size, device, layout or number is not as expected, an array that would be written is read-only or shares
        memory with another one, or `stream` does not go with the device. Nothing is written then.
    """
    arguments = {"input": input, "codes": codes, "scales": scales, "map": map, "block": block, "scaling": scaling}
    _array.convert(True, arguments | {"rounding": rounding, "seed": seed, "step": step}, stream)


def dequantize_(
    codes: Any, scales: Any, output: Any, *, map: int, block: int, scaling: int = 0, stream: int | None = None
) -> None:
    """Write the numbers that codes and scales stand for: ``torch.ops.momentum.dequantize_``.

    Parameters
    ----------
    codes, scales, map, block, scaling, stream
        As in :func:`quantize_`.
    output
        float32, bfloat16 or float16, C-contiguous, written.

    Raises
    ------
    TypeError, ValueError
        As :func:`quantize_` does. Nothing is written then.
    """
    arguments = {"codes": codes, "scales": scales, "output": output, "map": map, "block": block, "scaling": scaling}
    _array.convert(False, arguments, stream)


@dataclass(frozen=True)
class Quantized:
    """A quantised array.

    Attributes
    ----------
    codes
        uint8, one-dimensional, as in :func:`quantize_`.
    scales
        One-dimensional.
    format
        What the codes mean.
    shape
        Of the array.
    """

    codes: Any
    scales: Any
    format: CodeFormat
    shape: tuple[int, ...]

    def dequantize(self, dtype: str = "float32") -> Any:
        """Return the array in `dtype`, ``"float32"`` or ``"float16"``."""
        return dequantize(self.codes, self.scales, self.format, self.shape, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return int(self.codes.nbytes + self.scales.nbytes)


def quantize(
    input: Any, format: CodeFormat | int | str, *, scale_dtype: str = "float32", seed: int = 0, step: int = 0
) -> Quantized:
    """Quantise a NumPy or CuPy array in blocks of consecutive elements, into new arrays of the same kind.

    Parameters
    ----------
    input
        float32 or float16, of any shape. A CuPy array is quantised on CuPy's current stream.
    format
        ``"int4"``, ``"int8"`` or ``"fp8"``, which are for numbers with a sign; a :class:`~momentum.enums.CodeMap` or its name
        in lower case (``"linear4"`` and ``"unsigned_dynamic8"`` are the usual ones for magnitudes); or a :class:`CodeFormat`.
    scale_dtype
        ``"float32"`` or ``"float16"``; float16 scales end at 65504 (a larger one becomes NaN) and at 6e-8 (a smaller one
        becomes 0). Default: ``"float32"``.
    seed, step
        Stochastic rounding draws the Philox words of (seed, step, element).

    Returns
    -------
    Quantized
        In the order of the elements of a C-contiguous array.

    Raises
    ------
    TypeError
        When `input` is neither NumPy's nor CuPy's; :func:`quantize_` takes others.
    ValueError
        When the format is unknown or a dtype not supported.

    Examples
    --------
    >>> import numpy as np
    >>> from momentum import array
    >>> q = array.quantize(np.array([0.5, -1.0, 0.25], np.float32), "int8")
    >>> q.codes.nbytes, q.dequantize().round(4)
    (3, array([ 0.5008, -0.993 ,  0.2477], dtype=float32))
    """
    chosen = named_format(format)
    library = _library(input)
    kind, block, rounding, scaling = chosen.op_numbers()
    with _device(input):
        values = library.ascontiguousarray(input)
        codes = library.empty(chosen.code_bytes(values.size), "uint8")
        scales = library.empty(chosen.scale_count(input.shape), _float(scale_dtype, "scale_dtype"))
        numbers = {"map": kind, "block": block, "rounding": rounding, "scaling": scaling, "seed": seed, "step": step}
        quantize_(values, codes, scales, **numbers, stream=_current_stream(library))
    return Quantized(codes, scales, chosen, tuple(input.shape))


def dequantize(codes: Any, scales: Any, format: CodeFormat | int | str, shape: Sequence[int], dtype: str = "float32") -> Any:
    """Return the array that NumPy's or CuPy's `codes` and `scales` stand for.

    Parameters
    ----------
    codes, scales, format
        As in :class:`Quantized` and :func:`quantize`. CuPy arrays are read on CuPy's current stream.
    shape
        Of the result.
    dtype
        Of the result: ``"float32"`` or ``"float16"``.

    Raises
    ------
    TypeError
        When `codes` is neither NumPy's nor CuPy's.
    ValueError
        When the format is unknown, or the lengths of codes or scales do not fit the shape and the format.
    """
    chosen = named_format(format)
    library = _library(codes)
    kind, block, scaling = chosen.stored_numbers()
    with _device(codes):
        output = library.empty(tuple(shape), _float(dtype, "dtype"))
        dequantize_(codes, scales, output, map=kind, block=block, scaling=scaling, stream=_current_stream(library))
    return output


def named_format(value: CodeFormat | int | str) -> CodeFormat:
    """Return a format that may be given as a map, or by name."""
    if isinstance(value, CodeFormat):
        return value
    if isinstance(value, str) and value in MAPS:
        return CodeFormat(MAPS[value][0])
    try:
        return CodeFormat(value)
    except ValueError as error:
        raise ValueError(f"format must be a CodeFormat, one of {', '.join(map(repr, MAPS))}, or a map; {error}") from None


def _library(array: Any) -> ModuleType:
    """Return numpy or cupy, whichever the array is of; neither is imported that is not."""
    for kind in type(array).__mro__:
        name = kind.__module__.partition(".")[0]
        if kind.__name__ == "ndarray" and name in ("numpy", "cupy"):
            return sys.modules[name]
    raise TypeError(f"expected a NumPy or CuPy array, not {type(array).__name__}; quantize_ and dequantize_ take others")


def _device(array: Any) -> Any:
    """Return a context in which CuPy allocates beside the array."""
    return nullcontext() if _library(array).__name__ == "numpy" else array.device


def _current_stream(library: ModuleType) -> int | None:
    return None if library.__name__ == "numpy" else int(library.cuda.get_current_stream().ptr)


def _float(dtype: str, argument: str) -> str:
    name = getattr(dtype, "__name__", None) or str(dtype)
    if name not in ("float32", "float16"):
        raise ValueError(f"{argument} must be float32 or float16, got {dtype!r}")
    return name
