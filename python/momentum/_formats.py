"""Names and sizes of quantised formats, without torch: what :mod:`momentum.quant` and :mod:`momentum.array` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from momentum.enums import CodeMap, Rounding, Scaling

BLOCKS = (64, 128, 256)
UNSIGNED = (CodeMap.UNSIGNED_DYNAMIC4, CodeMap.LINEAR4, CodeMap.UNSIGNED_DYNAMIC8)
MAPS = {
    "int4": (CodeMap.DYNAMIC4, CodeMap.LINEAR4),
    "int8": (CodeMap.DYNAMIC8, CodeMap.UNSIGNED_DYNAMIC8),
    "fp8": (CodeMap.FLOAT8, CodeMap.FLOAT8),
}
"""The maps of the usual formats by name: of numbers that have a sign, and of those that have none."""

_SCALINGS = {"block": Scaling.BLOCK, "rank_one": Scaling.RANK_ONE, "grid": Scaling.GRID}
_ROUNDINGS = {"nearest": Rounding.NEAREST, "stochastic": Rounding.STOCHASTIC}


@dataclass(frozen=True, init=False)
class CodeFormat:
    """What codes of 4 or 8 bits stand for and what shares a scale; the dtype of the scales is the caller's.

    Parameters
    ----------
    map
        What the codes stand for: a :class:`~momentum.enums.CodeMap` or the name of one in lower case, such as ``"dynamic4"``.
    block
        Elements per scale: 64, 128 or 256. Default: 128 for codes of 4 bits, 256 for codes of 8.
    rounding
        ``"nearest"`` or ``"stochastic"``. Default: ``"nearest"``.
    scaling
        ``"block"``; or for matrices (dimension 0 by the rest, both larger than 1) ``"rank_one"``, a scale for every row and
        every column, of which an element takes the smaller; or ``"grid"``, the same within tiles of `block` by `block`. Scales
        are then float32. Default: ``"block"``.

    Raises
    ------
    ValueError
        When an argument is none of these. The message lists them.
    """

    map: CodeMap
    block: int
    rounding: str
    scaling: str

    def __init__(
        self, map: CodeMap | int | str, block: int | None = None, rounding: str = "nearest", scaling: str = "block"
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
        if rounding not in _ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(_ROUNDINGS)}, got {rounding!r}")
        if scaling not in _SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(_SCALINGS)}, got {scaling!r}")
        object.__setattr__(self, "map", chosen)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "rounding", rounding)
        object.__setattr__(self, "scaling", scaling)

    @property
    def bits(self) -> int:
        """Bits per code: 4 or 8."""
        return code_bits(self.map)

    @property
    def is_unsigned(self) -> bool:
        """Whether the codes stand for magnitudes only."""
        return self.map in UNSIGNED

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

    def op_numbers(self) -> list[int]:
        """Return the four numbers that describe the format to a step: map, block, rounding, scaling."""
        return [int(self.map), self.block, int(_ROUNDINGS[self.rounding]), int(_SCALINGS[self.scaling])]

    def stored_numbers(self) -> list[int]:
        """Return the three numbers that say how codes and scales are to be read: map, block, scaling."""
        return [int(self.map), self.block, int(_SCALINGS[self.scaling])]


def code_bits(code_map: CodeMap) -> int:
    """Return the bits per code of a map."""
    return 8 if code_map >= CodeMap.DYNAMIC8 else 4


def scaling_name(number: int) -> str:
    """Return the name of a :class:`~momentum.enums.Scaling`; of an unknown one, its number."""
    return {int(known): name for name, known in _SCALINGS.items()}.get(number, str(number))
