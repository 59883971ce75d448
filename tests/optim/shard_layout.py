"""Checks, rank by rank on a pretended mesh of 2 x 2, that `philox_layout` says where the elements of a shard lie.

And `local_place`, where its elements, columns and rows do.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from momentum.enums import Units
from momentum.optim._sharding import philox_layout
from momentum.optim._subset_layout import local_place

CASES = [
    ((6, 4), (Shard(0), Shard(1))),
    ((5, 3), (Shard(0), Shard(1))),
    ((8, 3), (Shard(0), Shard(0))),
    ((7, 3), (Shard(0), Shard(0))),
    ((2, 3, 4), (Shard(0), Shard(2))),
    ((2, 3, 4), (Replicate(), Shard(1))),
    ((1, 4, 4), (Shard(1), Shard(2))),
    ((3, 4), (Shard(1), Replicate())),
    ((1,), (Shard(0), Replicate())),
    ((9,), (Replicate(), Replicate())),
]
REFUSED = [((2, 4, 4), (Shard(1), Shard(2)))]
# Columns are dimensions 1 and 2 together: such shards hold them in several runs.
REFUSED_COLUMNS = [*REFUSED, ((2, 3, 4), (Shard(0), Shard(2))), ((1, 4, 4), (Shard(1), Shard(2)))]


def shard(shape: tuple[int, ...], placements: tuple, mesh) -> DTensor:
    size = torch.Size(shape).numel()
    return distribute_tensor(torch.arange(size).reshape(shape), mesh, placements, src_data_rank=None)


def check_place(axis: Units, shape: tuple[int, ...], placements: tuple, mesh) -> None:
    """Compare the units that a place names with those of the shard's elements."""
    tensor = shard(shape, placements, mesh)
    try:
        place = local_place(tensor, axis)
    except NotImplementedError:
        assert (shape, placements) in (REFUSED if axis == Units.ELEMENTS else REFUSED_COLUMNS), (axis, shape, placements)
        return
    assert (shape, placements) not in (REFUSED_COLUMNS if axis == Units.COLUMNS else REFUSED if axis == Units.ELEMENTS else [])
    element = tensor.to_local().reshape(place.rows, place.cols)
    cols = torch.Size(shape[1:]).numel()
    units = {Units.ELEMENTS: element, Units.COLUMNS: element % cols, Units.ROWS: (element // cols).t()}[axis]
    lines = place.start + place.stride * torch.arange(place.lines)[:, None] + torch.arange(place.length)
    assert place.units == {Units.ELEMENTS: shape[0] * cols, Units.COLUMNS: cols, Units.ROWS: shape[0]}[axis]
    if element.numel():
        expected = lines if axis == Units.ELEMENTS else lines.expand(units.shape)
        assert torch.equal(units, expected), (axis, shape, placements)


@torch.no_grad()
def main() -> None:
    for rank in range(4):
        dist.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
        mesh = init_device_mesh("cpu", (2, 2))
        for shape, placements in CASES:
            tensor = shard(shape, placements, mesh)
            offset, inner, outer = philox_layout(tensor)
            i = torch.arange(tensor.to_local().numel())
            place = offset + i // inner * outer + i % inner
            assert torch.equal(place, tensor.to_local().flatten()), (rank, shape, placements)
        for shape, placements in REFUSED:
            try:
                philox_layout(shard(shape, placements, mesh))
            except NotImplementedError:
                continue
            raise AssertionError((shape, placements))
        for case in CASES + REFUSED:
            for axis in Units:
                check_place(axis, *case, mesh)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
