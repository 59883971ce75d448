"""Operations on DTensors: two processes with halves do what one does with the whole."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import ranks
from momentum.functional import extrapolate_, reset_state_
from momentum.gradients import SAMGS
from tolerances import TOTAL, UNIT, bit_equal

SHAPES = [(7, 5), (1, 4), (6,)]


def make(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def run(place):
    """Return all results as they come from ``place``, which makes DTensors or nothing of tensors."""
    params, previous = [[place(x) for x in make(seed)] for seed in (0, 1)]
    extrapolate_(params, previous, 0.5)
    surgery = SAMGS(gamma=0.9999)
    combined = [surgery.combine([[place(3**task * x) for x in make(2 + task)] for task in range(3)]) for _ in range(2)]
    states = [place(x) for x in make(9)]
    reset_state_(states)
    return [*params, *previous, *combined[1], *states]


def run_sharded(rank, folder):
    mesh = init_device_mesh("cpu", (ranks.WORLD,))
    found = [x.full_tensor() for x in run(lambda x: distribute_tensor(x, mesh, [Shard(0)]))]
    if rank == 0:
        torch.save(found, folder / "found.pt")


def test_two_processes(tmp_path):
    ranks.run(run_sharded, tmp_path)
    found, whole = torch.load(tmp_path / "found.pt"), run(lambda x: x)
    count = len(SHAPES)
    assert all(map(bit_equal, found[: 2 * count], whole[: 2 * count]))
    for x, y in zip(found[2 * count : 3 * count], whole[2 * count : 3 * count], strict=True):
        # Totals may be added in another order; they enter by their roots.
        torch.testing.assert_close(x, y, rtol=2 * TOTAL * UNIT[torch.float32], atol=1e-6)
    assert all((x == 0).all() for x in found[3 * count :])
