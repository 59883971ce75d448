"""Where a launch reduces to, and how the totals of tensors that are spread over several processes are completed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from momentum.optim import _sharding
from momentum.optim._rule import Reduction


class Totals:
    """The ``totals`` of an op: reduction by reduction, tensor by tensor, one float64 per tensor, row or column.

    Parameters
    ----------
    params
        The parameters of the launch, DTensors or not.
    reductions
        What is reduced before the map, in order.
    device
        Where the tensors are.
    """

    def __init__(self, params: Sequence[Tensor], reductions: Sequence[Reduction], device: torch.device) -> None:
        self._layouts = [_Layout(params, reduction, device) for reduction in reductions]
        self._spread = any(layout.parts for layout in self._layouts)
        self.tensor = torch.zeros(sum(layout.size for layout in self._layouts), dtype=torch.float64, device=device)

    def stages(self) -> Iterator[dict[str, int]]:
        """Yield what each call of the op that makes up one step adds to its arguments; complete the totals between calls."""
        if not self._spread:
            yield {}
            return
        slices = torch.split(self.tensor, [layout.size for layout in self._layouts])
        for k, (layout, totals) in enumerate(zip(self._layouts, slices, strict=True)):
            totals.zero_()  # an empty shard adds nothing
            yield {"stage": 2 * k}
            layout.complete(totals)
            yield {"stage": 2 * k + 1}
        yield {"stage": 2 * len(slices)}


class _Layout:
    """The totals of one reduction: how many there are, and which are parts of a whole."""

    def __init__(self, params: Sequence[Tensor], reduction: Reduction, device: torch.device) -> None:
        self.size = 0
        self.parts: dict[Any, _Part] = {}
        shares = []
        for param in params:
            shape = _sharding.local(param).shape
            count, reduced = _extent(shape, reduction.axis)
            for group in _groups(param, reduction.axis):
                self.parts.setdefault(group, _Part(group, reduction.combine)).add(self.size, count)
            self.size += count
            whole = _extent(param.shape, reduction.axis)[1]
            shares.append(torch.full((count,), reduced / max(whole, 1), dtype=torch.float64))
        for part in self.parts.values():
            part.settle(device)
        self._shares = torch.cat(shares).to(device) if self.parts and reduction.mean else None

    def complete(self, totals: Tensor) -> None:
        """Combine the parts, with one all-reduce per process group."""
        for part in self.parts.values():
            part.complete(totals)
        if self._shares is not None:
            totals.mul_(self._shares)  # the op divides by the size of the shard


class _Part:
    """The totals that are spread over one process group."""

    def __init__(self, group: Any, combine: str) -> None:
        self._group = group
        self._combine = combine
        self._ranges: list[Tensor] = []

    def add(self, start: int, count: int) -> None:
        """Include ``count`` totals from ``start`` on; every process of the group has as many, in the same order."""
        self._ranges.append(torch.arange(start, start + count))

    def settle(self, device: torch.device) -> None:
        """Fix the layout."""
        self._index = torch.cat(self._ranges).to(device)

    def complete(self, totals: Tensor) -> None:
        """Combine the totals of all processes of the group."""
        from torch.distributed import ReduceOp, all_reduce

        shared = totals.index_select(0, self._index)
        all_reduce(shared, ReduceOp.MAX if self._combine == "max" else ReduceOp.SUM, self._group)
        totals.index_copy_(0, self._index, shared)


def _extent(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """Return how many totals a tensor has and how many elements each one combines."""
    rows, columns = (shape[0], prod(shape[1:])) if len(shape) else (1, 1)
    return {-1: (1, rows * columns), 0: (columns, rows), 1: (rows, columns)}[axis]


def _groups(param: Tensor, axis: int) -> list[Any]:
    """Return the process groups over which the totals of ``param`` are spread."""
    if not _sharding.is_sharded(param):
        return []
    return [
        param.device_mesh.get_group(mesh_dim)  # type: ignore[attr-defined]
        for mesh_dim, dim in _sharding.sharded_dims(param)  # type: ignore[arg-type]
        if axis == -1 or (dim == 0) == (axis == 0)
    ]
