"""Where the chosen units of a tensor, or of its shard, have their bits and their states: what ``csrc/core/subset.h`` says."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from momentum.enums import Units
from momentum.optim import _sharding

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

BLOCK = 256


@dataclass(frozen=True)
class Place:
    """The units of a tensor, which may be a part of a whole.

    Attributes
    ----------
    axis
        What a unit is.
    rows, cols
        The matrix that the tensor is; of elements: lines, which are neighbours in the whole, by elements of a line.
    units
        Units of the whole.
    start, stride
        The first unit in the whole, and how far it is from a line to the next; 0 where there is one.
    """

    axis: Units
    rows: int
    cols: int
    units: int
    start: int = 0
    stride: int = 0

    @property
    def lines(self) -> int:
        """Runs of neighbouring units."""
        return self.rows if self.axis == Units.ELEMENTS else 1

    @property
    def length(self) -> int:
        """Units of a line."""
        return self.rows if self.axis == Units.ROWS else self.cols

    @property
    def op_numbers(self) -> list[int]:
        """The four numbers of the op's ``shards``."""
        return [self.units, self.start, self.length, self.stride]


@dataclass(frozen=True)
class Layout:
    """The masks and states of a place of whose units ``count``, in the whole, are chosen."""

    place: Place
    count: int

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of a state."""
        place, room = self.place, self._room
        shapes = {Units.ELEMENTS: (place.lines * room,), Units.COLUMNS: (place.rows, room), Units.ROWS: (room, place.cols)}
        return shapes[place.axis]

    @property
    def mask_words(self) -> int:
        """How many int32 hold a bit for each unit."""
        if self.count in (0, self.place.units) or self.place.length == 0:
            return 0
        if self.place.stride:
            return self.place.lines * self._tiles * BLOCK // 32
        last = (self.place.start + self.place.length - 1) % BLOCK if self._tiles > 1 else self.place.length - 1
        return ((self._tiles - 1) * BLOCK + last + 32) // 32

    def chosen(self, mask: Tensor) -> Tensor:
        """Return which units a mask names, lines by units of a line."""
        lines, length = self.place.lines, self.place.length
        if self.mask_words == 0:
            return torch.full((lines, length), self.count > 0, device=mask.device)
        bits = ((mask[:, None] >> torch.arange(32, dtype=torch.int32, device=mask.device)) & 1).bool().flatten()
        return bits[self._bits(mask.device)]

    def mask(self, chosen: Tensor) -> Tensor:
        """Return the mask of ``chosen`` units."""
        bits = torch.zeros(self.mask_words * 32, dtype=torch.int64, device=chosen.device)
        if self.mask_words:
            bits[self._bits(chosen.device)] = chosen.long()
        words = (bits.view(-1, 32) << torch.arange(32, device=chosen.device)).sum(1)
        return (words - ((words >> 31) << 32)).int()

    def holds(self, chosen: Tensor) -> bool:
        """Return whether ``chosen`` units are as many in each block as a draw chooses, or none before the first draw."""
        if self.mask_words and not chosen.any():
            return True
        if self.mask_words == 0:
            return bool((chosen == (self.count > 0)).all())
        tiles, lines, device = self._tiles, self.place.lines, chosen.device
        padded = torch.zeros(lines * tiles * BLOCK, dtype=torch.int64, device=device)
        there = padded.clone()
        padded[self._bits(device)] = chosen.long()
        there[self._bits(device)] = 1
        found, units = padded.view(lines, tiles, BLOCK).sum(2), there.view(lines, tiles, BLOCK).sum(2)
        block = self._first_blocks(device)[:, None] + torch.arange(tiles, device=device)
        share = self._before(block + 1) - self._before(block)
        whole = units == (self.place.units - block * BLOCK).clamp(max=BLOCK)
        return bool(((found == share) | ~whole & (found <= share)).all())

    def spread(self, state: Tensor, chosen: Tensor) -> Tensor:
        """Return the state of every element of the matrix, zero where it is not chosen."""
        dense = torch.zeros(self.place.rows, self.place.cols, dtype=state.dtype, device=state.device)
        slots = self._slots(chosen)
        if self.place.axis == Units.ELEMENTS:
            dense[chosen] = state[slots]
        elif self.place.axis == Units.COLUMNS:
            dense[:, chosen[0]] = state[:, slots]
        else:
            dense[chosen[0]] = state[slots]
        return dense

    def gather(self, dense: Tensor, chosen: Tensor) -> Tensor:
        """Return the state of the ``chosen`` units of a matrix."""
        state = torch.zeros(self.state_shape, dtype=dense.dtype, device=dense.device)
        dense, slots = dense.reshape(self.place.rows, self.place.cols), self._slots(chosen)
        if self.place.axis == Units.ELEMENTS:
            state[slots] = dense[chosen]
        elif self.place.axis == Units.COLUMNS:
            state[:, slots] = dense[:, chosen[0]]
        else:
            state[slots] = dense[chosen[0]]
        return state

    def elements_of(self, chosen: Tensor) -> Tensor:
        """Return the elements of the matrix that ``chosen`` units have."""
        unit = chosen.t() if self.place.axis == Units.ROWS else chosen
        return unit.expand(self.place.rows, self.place.cols)

    def units_of(self, elements: Tensor) -> Tensor:
        """Return the units that chosen ``elements`` are: the inverse of :meth:`elements_of`, of a tensor that has elements."""
        matrix = elements.reshape(self.place.rows, self.place.cols)
        if matrix.numel() == 0:
            return torch.zeros(self.place.lines, self.place.length, dtype=torch.bool, device=matrix.device)
        return {Units.ELEMENTS: matrix, Units.COLUMNS: matrix[:1], Units.ROWS: matrix[:, :1].t()}[self.place.axis]

    # A line is cut at the borders of the whole's blocks; the bits of a tile begin with a word of their own, and its states
    # have as much room as the tile may have chosen units.

    @property
    def _tiles(self) -> int:
        place = self.place
        if place.length == 0:
            return 0
        if place.stride % BLOCK == 0:
            return (place.start % BLOCK + place.length - 1) // BLOCK + 1
        return (place.length + 2 * BLOCK - 2) // BLOCK

    @property
    def _room(self) -> int:
        """States of a line."""
        place = self.place
        if place.length == 0:
            return 0
        if place.stride:
            most = -(-BLOCK * self.count // place.units)
            return min(self._tiles * most, place.length)
        first, last = place.start // BLOCK, (place.start + place.length - 1) // BLOCK
        before: list[int] = self._before(torch.tensor([first, first + 1, last, last + 1])).tolist()
        units = min(BLOCK - place.start % BLOCK, place.length)
        room = min(before[1] - before[0], units)
        if last > first:
            room += before[2] - before[1] + min(before[3] - before[2], (place.start + place.length - 1) % BLOCK + 1)
        return room

    def _before(self, block: Tensor) -> Tensor:
        """Return how many units are chosen before a block."""
        each, rest = divmod(self.count * BLOCK, self.place.units)
        return torch.where(block * BLOCK >= self.place.units, self.count, block * each + block * rest // self.place.units)

    def _starts(self, device: torch.device) -> Tensor:
        return self.place.start + self.place.stride * torch.arange(self.place.lines, device=device)

    def _first_blocks(self, device: torch.device) -> Tensor:
        return self._starts(device) // BLOCK

    def _bits(self, device: torch.device) -> Tensor:
        """Return the bit of each unit, lines by units of a line."""
        shift = (self._starts(device) % BLOCK)[:, None]
        unit = torch.arange(self.place.length, device=device)
        line = torch.arange(self.place.lines, device=device)[:, None] * self._tiles * BLOCK
        return line + unit + torch.where(unit < BLOCK - shift, 0, shift)

    def _slots(self, chosen: Tensor) -> Tensor:
        """Return where the states of ``chosen`` units are, counted in units."""
        if chosen.numel() == 0:
            return torch.zeros(0, dtype=torch.int64, device=chosen.device)
        head = (BLOCK - self._starts(chosen.device) % BLOCK).clamp(max=self.place.length)[:, None]
        first = self._first_blocks(chosen.device)[:, None]
        room = torch.minimum(self._before(first + 1) - self._before(first), head)
        in_head = torch.arange(self.place.length, device=chosen.device) < head
        unused = room - (chosen & in_head).sum(1, keepdim=True)
        slot = chosen.cumsum(1) - 1 + torch.where(in_head, 0, unused)
        line = torch.arange(self.place.lines, device=chosen.device)[:, None] * self._room
        return (slot + line)[chosen]


def is_split(param: Tensor, axis: Units) -> bool:
    """Return whether processes may hold different units of ``param``, so that its states are not shards of one tensor.

    Those of columns are where rows are sharded, and those of the rows of a matrix where its columns are.
    """
    if not _sharding.is_sharded(param):
        return False
    dims = {dim for _, dim in _sharding.sharded_dims(param)}  # type: ignore[arg-type]
    if axis == Units.COLUMNS:
        return bool(dims - {0})
    return axis == Units.ELEMENTS or 0 in dims or (bool(dims) and param.ndim > 2)


def matrix_shape(shape: torch.Size, axis: Units) -> tuple[int, int]:
    """Return the rows and columns of a tensor: dim 0 by the rest, and of elements a single line."""
    return (1, prod(shape)) if axis == Units.ELEMENTS or not shape else (shape[0], prod(shape[1:]))


def unit_count(shape: torch.Size, axis: Units) -> int:
    """Return the number of units of a tensor."""
    rows, cols = matrix_shape(shape, axis)
    return rows if axis == Units.ROWS else cols


def whole_place(shape: torch.Size, axis: Units) -> Place:
    """Return the place of a tensor that is not a part."""
    return Place(axis, *matrix_shape(shape, axis), unit_count(shape, axis))


@torch.no_grad()
def local_place(param: Tensor, axis: Units) -> Place:
    """Return the place of the part of ``param`` that this process holds.

    Raises
    ------
    NotImplementedError
        When its units are not evenly spaced lines of the whole.
    """
    shape = _sharding.local(param).shape
    if not is_split(param, axis):
        return Place(axis, *matrix_shape(shape, axis), unit_count(param.shape, axis))
    units = unit_count(param.shape, axis)
    if axis == Units.ELEMENTS:
        if prod(shape) == 0:
            return Place(axis, 1, 0, units)
        start, line, stride = _sharding.philox_layout(param)
        lines = prod(shape) // line
        return Place(axis, lines, line, units, start, stride if lines > 1 else 0)
    rows, cols = matrix_shape(shape, axis)
    if rows == 0 or cols == 0:
        return Place(axis, rows, cols, units)
    return Place(axis, rows, cols, units, _first_unit(param, axis))  # type: ignore[arg-type]


def _first_unit(param: DTensor, axis: Units) -> int:
    """Return the first row or column of the part that this process holds."""
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)
    if any(type(p) is not Shard for p in param.placements if hasattr(p, "dim")):
        raise NotImplementedError
    if axis == Units.ROWS:
        return int(offset[0])
    split = [dim for dim in range(1, param.ndim) if shape[dim] != param.shape[dim]]
    if len(split) > 1 or (split and prod(param.shape[1 : split[0]]) > 1):
        raise NotImplementedError
    return int(offset[split[0]]) * prod(param.shape[split[0] + 1 :]) if split else 0
