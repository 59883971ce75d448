"""Operations on DTensors: two processes with halves do what one does with the whole."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

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


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    found = [x.full_tensor() for x in run(lambda x: distribute_tensor(x, mesh, [Shard(0)]))]
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.barrier()  # neither leaves while the other still sends
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    processes = [torch.multiprocessing.get_context("spawn").Process(target=worker, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found, whole = torch.load(tmp_path / "found.pt"), run(lambda x: x)
    count = len(SHAPES)
    assert all(map(bit_equal, found[: 2 * count], whole[: 2 * count]))
    for x, y in zip(found[2 * count : 3 * count], whole[2 * count : 3 * count], strict=True):
        # Totals may be added in another order; they enter by their roots.
        torch.testing.assert_close(x, y, rtol=2 * TOTAL * UNIT[torch.float32], atol=1e-6)
    assert all((x == 0).all() for x in found[3 * count :])
