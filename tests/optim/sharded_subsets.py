"""What the tests of subsets of sharded parameters run: the same training on whole tensors and, in two processes, on shards.

``run_subsets`` is for each of the processes. Rank 0 writes what it found to ``found.pt``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from momentum import optim
from optim.cases import Gradients
from optim.sharded import full, load, make_model, save, train_model
from ranks import WORLD

STEPS = 8
# Halves that begin inside a block and at its border, of three dimensions and of one, and empty on one rank.
SHAPES = [(41, 33), (9, 600), (16, 512), (1, 300), (6, 4, 5), (33,)]
SPAM = {"reset_interval": 3, "warmup_steps": 2, "accumulation_steps": 1, "threshold": 2.0, "density": 0.3, "weight_decay": 0.1}
FRUGAL = {"update_gap": 3, "density": 0.3, "weight_decay": 0.1}

KINDS = {
    "columns": lambda p: optim.FRUGAL(p, lr=0.01, **FRUGAL),
    "rows": lambda p: optim.FRUGAL(p, lr=0.01, projector="rows", active="lion", **FRUGAL),
    "entries": lambda p: optim.FRUGAL(p, lr=0.01, projector="random", **FRUGAL),
    "entries that stay": lambda p: optim.FRUGAL(p, lr=0.01, projector="random", reset_statistics=False, active="sgd", **FRUGAL),
    "tensors": lambda p: optim.FRUGAL(p, lr=0.01, projector="block", **FRUGAL),
    "SPAM": lambda p: optim.SPAM(p, lr=0.01, **SPAM),
}
PLACEMENTS: dict[str, list[Placement]] = {"rows": [Shard(0)], "columns": [Shard(1)], "copies": [Replicate()]}
MODEL = (41, 21)


def train_tensors(make: Any, mesh: DeviceMesh | None = None, placements: list[Placement] | None = None) -> dict[str, Any]:
    """Train parameters, placed where a mesh is given; return them and the optimizer's state, of whole tensors."""

    def place(whole: Tensor) -> Tensor:
        if mesh is None:
            return whole.clone()
        return distribute_tensor(whole, mesh, placements if whole.ndim > 1 or placements != [Shard(1)] else [Shard(0)])

    generator = torch.Generator().manual_seed(0)
    wholes = [torch.randn(shape, generator=generator) for shape in SHAPES]
    params = [nn.Parameter(place(whole)) for whole in wholes]
    optimizer = make(params)
    gradients = Gradients()
    for _ in range(STEPS):
        sources = [nn.Parameter(whole) for whole in wholes]
        gradients.fill(sources)
        for p, source in zip(params, sources, strict=True):
            p.grad = place(source.grad)
        optimizer.step()
    saved = optimizer.state_dict()
    saved["state"] = {i: whole_values(values) for i, values in saved["state"].items()}
    return {"params": [full(p.detach()) for p in params], "optimizer": saved}


def whole_values(values: dict[str, Any]) -> dict[str, Any]:
    return {name: full(value).clone() if isinstance(value, Tensor) else value for name, value in values.items()}


def whole_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the parameters and the optimizer's state by name, of whole tensors."""
    saved = copy.copy(get_optimizer_state_dict(model, optimizer))
    saved["state"] = {name: whole_values(values) for name, values in saved["state"].items()}
    return {"params": whole_values(model.state_dict()), "optimizer": saved}


def sharded_model(kind: str, mesh: DeviceMesh) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = make_model(*MODEL)
    fully_shard(model, mesh=mesh)
    return model, KINDS[kind](model.parameters())


def train_models(folder: Path, mesh: DeviceMesh, world: int) -> dict[str, Any]:
    """Train each kind for 5 steps, save, and go on for 3; then do those 3 from what other numbers of processes saved."""
    found = {}
    for kind in KINDS:
        model, optimizer = sharded_model(kind, mesh)
        train_model(model, optimizer, 5)
        found[f"{kind} at 5"] = whole_model(model, optimizer)
        save(model, optimizer, folder / f"{kind}-from-{world}")
        train_model(model, optimizer, 3, seed=1)
        found[f"{kind} at 8"] = whole_model(model, optimizer)
    return found


def resume_models(folder: Path, mesh: DeviceMesh, source: int) -> dict[str, Any]:
    """Load what ``source`` processes saved after 5 steps, and train for 3 more."""
    found = {}
    for kind in KINDS:
        model, optimizer = sharded_model(kind, mesh)
        load(model, optimizer, folder / f"{kind}-from-{source}")
        found[f"{kind} loaded"] = whole_model(model, optimizer)
        train_model(model, optimizer, 3, seed=1)
        found[f"{kind} resumed"] = whole_model(model, optimizer)
    return found


def load_plain(folder: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """Load what one process without shards saved with :func:`torch.save`."""
    found = {}
    for kind in KINDS:
        model, optimizer = sharded_model(kind, mesh)
        saved = torch.load(folder / f"{kind}-plain.pt", weights_only=True)
        set_optimizer_state_dict(model, optimizer, saved)
        found[f"{kind} from plain"] = whole_model(model, optimizer)
    return found


def run_subsets(rank: int, folder: Path) -> None:
    mesh = init_device_mesh("cpu", (WORLD,))
    found: dict[str, Any] = {}
    for kind, make in KINDS.items():
        for name, placements in PLACEMENTS.items():
            found[f"{kind} sharded by {name}"] = train_tensors(make, mesh, placements)
    found |= train_models(folder, mesh, WORLD)
    found |= resume_models(folder, mesh, 1)
    found |= load_plain(folder, mesh)
    if rank == 0:
        torch.save(found, folder / "found.pt")
