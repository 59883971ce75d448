"""Names and properties of the quantised formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from momentum.enums import CodeMap, Rounding, Scaling

BLOCKS = (64, 128, 256)
SCALE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SCALINGS = {"block": Scaling.BLOCK, "rank_one": Scaling.RANK_ONE, "grid": Scaling.GRID}
_ROUNDINGS = {"nearest": Rounding.NEAREST, "stochastic": Rounding.STOCHASTIC}
_UNSIGNED = (CodeMap.UNSIGNED_DYNAMIC4, CodeMap.LINEAR4, CodeMap.UNSIGNED_DYNAMIC8)


@dataclass(frozen=True, init=False)
class StateFormat:
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

    map: CodeMap
    block: int
    scale_dtype: torch.dtype
    rounding: str
    scaling: str

    def __init__(
        self,
        map: CodeMap | int | str,
        block: int | None = None,
        scale_dtype: torch.dtype = torch.float32,
        rounding: str = "nearest",
        scaling: str = "block",
    ) -> None:
        known = {m.name.lower(): m for m in CodeMap if m != CodeMap.NONE}
        numbered = {int(m): m for m in known.values()}
        chosen = known.get(map) if isinstance(map, str) else numbered.get(map)
        if chosen is None:
            raise ValueError(f"map must be one of {', '.join(known)}, got {map!r}")
        if block is None:
            block = 256 if code_bits(chosen) == 8 else 128
        if isinstance(block, bool) or block not in BLOCKS:
            raise ValueError(f"block must be one of {', '.join([str(size) for size in BLOCKS])} elements, got {block!r}")
        if scale_dtype not in SCALE_DTYPES:
            raise ValueError(
                f"scale_dtype must be one of {', '.join([str(dtype) for dtype in SCALE_DTYPES])}, got {scale_dtype!r}"
            )
        if rounding not in _ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(_ROUNDINGS)}, got {rounding!r}")
        if scaling not in _SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(_SCALINGS)}, got {scaling!r}")
        if scaling != "block" and scale_dtype != torch.float32:
            raise ValueError(f"scaling={scaling!r} has float32 scales, got scale_dtype={scale_dtype!r}")
        object.__setattr__(self, "scaling", scaling)
        object.__setattr__(self, "map", chosen)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "scale_dtype", scale_dtype)
        object.__setattr__(self, "rounding", rounding)

    @property
    def bits(self) -> int:
        """Bits per code: 4 or 8."""
        return code_bits(self.map)

    @property
    def is_unsigned(self) -> bool:
        """Whether the codes stand for magnitudes only."""
        return self.map in _UNSIGNED

    @property
    def bytes_per_element(self) -> float:
        """Bytes per element of a long tensor, scales in blocks included."""
        return self.bits / 8 + self.scale_dtype.itemsize / self.block

    def code_bytes(self, numel: int) -> int:
        """Return how many bytes the codes of `numel` elements take."""
        return numel if self.bits == 8 else (numel + 1) // 2

    def scale_count(self, shape: Sequence[int]) -> int:
        """Return how many scales a tensor has."""
        if not self.has_matrix_scales(shape):
            return -(-prod(shape) // self.block)
        rows, columns = shape[0], prod(shape[1:])
        if self.scaling == "rank_one":
            return rows + columns
        return rows * -(-columns // self.block) + -(-rows // self.block) * columns

    def has_matrix_scales(self, shape: Sequence[int]) -> bool:
        """Return whether a tensor has scales for rows and columns rather than for blocks."""
        return self.scaling != "block" and len(shape) > 1 and shape[0] > 1 and prod(shape[1:]) > 1

    def same_storage(self, other: StateFormat) -> bool:
        """Return whether codes and scales mean the same in both."""
        return replace(self, rounding="nearest") == replace(other, rounding="nearest")

    def op_numbers(self) -> list[int]:
        """Return the four numbers that describe the format to a step: map, block, rounding, scaling."""
        return [int(self.map), self.block, int(_ROUNDINGS[self.rounding]), int(_SCALINGS[self.scaling])]

    def stored_numbers(self) -> list[int]:
        """Return the three numbers that say how codes and scales are to be read: map, block, scaling."""
        return [int(self.map), self.block, int(_SCALINGS[self.scaling])]

    @classmethod
    def from_stored(cls, numbers: Sequence[int], scale_dtype: torch.dtype) -> StateFormat:
        """Return the format that :meth:`stored_numbers` describes."""
        code_map, block, scaling = numbers
        names = {int(number): name for name, number in _SCALINGS.items()}
        return cls(code_map, block, scale_dtype, scaling=names.get(scaling, str(scaling)))


def code_bits(code_map: CodeMap) -> int:
    """Return the bits per code of a map."""
    return 8 if code_map >= CodeMap.DYNAMIC8 else 4


FORMATS: dict[str, tuple[StateFormat, StateFormat]] = {
    "int4": (StateFormat("dynamic4"), StateFormat("linear4")),
    "int8": (StateFormat("dynamic8"), StateFormat("unsigned_dynamic8")),
    "fp8": (StateFormat("float8"), StateFormat("float8")),
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
    unsigned = kind in _UNSIGNED
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
