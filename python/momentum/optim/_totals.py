"""Where a launch reduces to, and how the totals of tensors that are spread over several processes are completed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from momentum.optim import _sharding
from momentum.optim._rule import PERPENDICULAR, Reduction


class Totals:
    """The ``totals`` of an op: reduction by reduction, tensor by tensor, float64s per tensor, row or column.

    Parameters
    ----------
    params
        The parameters of the launch, DTensors or not.
    reductions
        What is reduced before the map, in order.
    device
        Where the tensors are.
    perpendicular
        Whether the step begins with the sums behind the perpendicular part of the gradients; they come last in memory.

    Attributes
    ----------
    tensor
        The op's argument.
    is_staged
        Whether a step takes several calls of the op, between which totals are completed.

    Raises
    ------
    RuntimeError
        When a DTensor is split so that a reduction cannot be completed.
    """

    def __init__(
        self, params: Sequence[Tensor], reductions: Sequence[Reduction], device: torch.device, *, perpendicular: bool = False
    ) -> None:
        self._own = len(reductions)
        ordered = [*reductions, PERPENDICULAR] if perpendicular else reductions
        self._layouts = [_Layout(params, reduction, device) for reduction in ordered]
        self.is_staged = any(layout.parts or layout.shared for layout in self._layouts)
        self.tensor = torch.zeros(sum(layout.size for layout in self._layouts), dtype=torch.float64, device=device)

    def stages(self) -> Generator[dict[str, int] | Tensor]:
        """Yield what each call of the op that makes up one step adds to its arguments; complete the totals between calls.

        A tensor that is yielded in between holds totals that are to be replaced by the sum of all those of the step.
        """
        if not self.is_staged:
            yield {}
            return
        slices = torch.split(self.tensor, [layout.size for layout in self._layouts])
        passes = [(2 * k, k) for k in range(self._own)]
        if len(slices) > self._own:
            passes.insert(0, (2 * self._own + 1, self._own))
        for stage, k in passes:
            slices[k].zero_()  # an empty shard adds nothing
            yield {"stage": stage}
            self._layouts[k].complete(slices[k])
            if self._layouts[k].shared:
                yield slices[k]
            yield {"stage": stage + 1}
        yield {"stage": 2 * self._own}


class _Layout:
    """The totals of one reduction: how many there are, and which are parts of a whole."""

    def __init__(self, params: Sequence[Tensor], reduction: Reduction, device: torch.device) -> None:
        self.size = 0
        self.shared = reduction.shared
        self.parts: dict[Any, _Part] = {}
        shares = []
        for i, param in enumerate(params):
            if reduction.matrices and param.dim() < 2:
                continue
            shape = _sharding.local(param).shape
            count, reduced = _extent(shape, reduction.axis)
            for group in _groups(param, reduction.axis):
                if reduction.matrices:
                    raise RuntimeError(
                        f"parameter {i} of the step, of shape {tuple(param.shape)}, has placements {param.placements}, "  # type: ignore[attr-defined]
                        "expected rows that lie whole on one process: shard it along dimension 0"
                    )
                self.parts.setdefault(group, _Part(group, reduction.combine)).add(self.size, count * reduction.width)
            self.size += count * reduction.width
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


def share(parts: Sequence[Tensor]) -> None:
    """Replace every total by the sum of all: in the order of the lists, on the devices they are on."""
    home = parts[0].device
    total = torch.stack([part.sum().to(home, non_blocking=True) for part in parts]).sum()
    for part in parts:
        part.copy_(total.to(part.device, non_blocking=True).expand_as(part))


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
