"""Names and properties of the quantised formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from momentum._formats import MAPS, UNSIGNED, CodeFormat, code_bits, scaling_name
from momentum.enums import CodeMap

SCALE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, init=False)
class StateFormat(CodeFormat):
    """A tensor as codes of 4 or 8 bits and scales, the largest magnitudes of what shares them.

    Parameters
    ----------
    map
        What the codes stand for: a :class:`~momentum.enums.CodeMap` or the name of one in lower case, such as ``"dynamic4"``.
    block
        Elements per scale: 64, 128 or 256. Default: 128 for codes of 4 bits, 256 for codes of 8.
    scale_dtype
        ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``. float16 scales end at 65504 (a larger one becomes NaN)
        and at 6e-8 (a smaller one becomes 0); second moments can be smaller than that. Default: float32.
    rounding
        ``"nearest"`` or ``"stochastic"``. Default: ``"nearest"``.
    scaling
        ``"block"``; or for matrices (dimension 0 by the rest, both larger than 1) ``"rank_one"``, a scale for every row and
        every column, of which an element takes the smaller: the most accurate for second moments, at the price of a second
        pass over the tensors; or ``"grid"``, the same within tiles of `block` by `block`. Scales are then float32, and the
        tensor contiguous. Default: ``"block"``.

    Raises
    ------
    ValueError
        When an argument is none of these. The message lists them.

    Notes
    -----
    *Not a number.* A block with a NaN or an infinity gets the scale NaN, and all of it reads as NaN.

    *Sources.* Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (2022); Li, Chen and Zhu, "Memory Efficient
    Optimizers with 4-bit States" (2023).

    Examples
    --------
    >>> from momentum.quant import StateFormat
    >>> StateFormat("dynamic4", block=64).bytes_per_element
    0.5625
    """

    scale_dtype: torch.dtype

    def __init__(
        self,
        map: CodeMap | int | str,
        block: int | None = None,
        scale_dtype: torch.dtype = torch.float32,
        rounding: str = "nearest",
        scaling: str = "block",
    ) -> None:
        super().__init__(map, block, rounding, scaling)
        if scale_dtype not in SCALE_DTYPES:
            raise ValueError(
                f"scale_dtype must be one of {', '.join([str(dtype) for dtype in SCALE_DTYPES])}, got {scale_dtype!r}"
            )
        if scaling != "block" and scale_dtype != torch.float32:
            raise ValueError(f"scaling={scaling!r} has float32 scales, got scale_dtype={scale_dtype!r}")
        object.__setattr__(self, "scale_dtype", scale_dtype)

    @property
    def bytes_per_element(self) -> float:
        """Bytes per element of a long tensor, scales in blocks included."""
        return self.bits / 8 + self.scale_dtype.itemsize / self.block

    def same_storage(self, other: StateFormat) -> bool:
        """Return whether codes and scales mean the same in both."""
        return replace(self, rounding="nearest") == replace(other, rounding="nearest")

    @classmethod
    def from_stored(cls, numbers: Sequence[int], scale_dtype: torch.dtype) -> StateFormat:
        """Return the format that :meth:`stored_numbers` describes."""
        code_map, block, scaling = numbers
        return cls(code_map, block, scale_dtype, scaling=scaling_name(scaling))


FORMATS: dict[str, tuple[StateFormat, StateFormat]] = {
    name: (StateFormat(signed), StateFormat(unsigned)) for name, (signed, unsigned) in MAPS.items()
}
"""The usual formats by name: of states that have a sign, and of those that have none."""


def table(code_map: CodeMap | str) -> Tensor:
    """Return the number that each code stands for, in float64, as the sources define it.

    Parameters
    ----------
    code_map
        A map, or its name in lower case.

    Returns
    -------
    Tensor
        Shape (16,) or (256,). Entry ``c`` belongs to code ``c``; for ``linear8`` and ``float8`` codes are bit patterns.
    """
    kind = StateFormat(code_map).map
    if kind == CodeMap.LINEAR4:
        return (torch.arange(16, dtype=torch.float64) + 1) / 16
    if kind == CodeMap.LINEAR8:
        return torch.arange(256).to(torch.uint8).view(torch.int8).double() / 127
    if kind == CodeMap.FLOAT8:
        return torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).double() / 448
    unsigned = kind in UNSIGNED
    decades = code_bits(kind) - 1
    positive = []
    for i in range(decades):
        ends = torch.linspace(0.1, 1, 2 ** (i + unsigned) + 1, dtype=torch.float64)
        positive.append((ends[:-1] + ends[1:]) / 2 * 10.0 ** (i - decades + 1))
    values = torch.cat(positive)
    negative = values.new_empty(0) if unsigned else -values.flip(0)
    if kind == CodeMap.DYNAMIC4_MINUS_ONE:
        negative = torch.cat([values.new_tensor([-1.0]), negative[:-1]])
    return torch.cat([negative, values.new_tensor([0.0]), values, values.new_tensor([1.0])])
