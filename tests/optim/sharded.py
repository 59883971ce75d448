"""What the tests of sharded parameters run: the same training on whole tensors and, in two processes, on shards.

``run_shards`` is for each of the processes. Rank 0 writes what it found to ``found.pt``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from momentum import optim
from momentum.quant import StateFormat
from optim.cases import CASES, Gradients
from ranks import WORLD

STEPS = 12
SHAPES = [(7, 5), (6, 4), (1, 4), (4, 2, 3)]  # uneven, even, empty on one rank, three dimensions

Place = Callable[[Tensor], Tensor]


def run_of(
    name: str,
    dim: int = 0,
    dtype: torch.dtype = torch.float32,
    shapes: list[tuple[int, ...]] = SHAPES,
    whole: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Describe a run; ``whole`` are options that the run on whole tensors has besides."""
    return {"name": name, "dim": dim, "dtype": dtype, "shapes": shapes, "whole": whole or {}, "options": options}


# Halves of the first and the third are whole blocks of 64 to 256 elements, those of the others are not.
BLOCKS = [(8, 64), (7, 64), (512,), (6, 44)]
HALVED = {"shapes": BLOCKS, "quantize_min_numel": 0, "whole": {"full_precision": (1, 3)}}
RANDOM_CODES = StateFormat("dynamic4", 64, rounding="stochastic")


RUNS = {
    **{
        name: run_of(name)
        for name in (
            "AdamW-amsgrad",
            "SGD-momentum",
            "Lion",
            "AdaBelief",
            "DiffGrad",
            "SophiaG",
            "Adan",
            "AMAdamW",
            "AdamP",
            "SGDP",
            "AdamW-orthograd",
            "StableSPAM-orthograd",
            "NormalizedSGD",
            "NormalizedSGD-all",
            "SGDSaI",
            "SPAM",
            "StableSPAM",
            "SCALE",
            "SCALE-momentum",
        )
    },
    "AdamW by columns": run_of("AdamW", dim=1),
    "StableSPAM by columns": run_of("StableSPAM", dim=1),
    "orthograd by columns": run_of("AdamW-orthograd", dim=1),
    "Adan clipped": run_of("Adan-clipped"),
    "SGDSaI by columns": run_of("SGDSaI", dim=1),
    "Lion of the largest": run_of("Lion-top-k"),
    "Lion of the largest by columns": run_of("Lion-top-k", dim=1, cautious=True, dtype=torch.bfloat16),
    "Lion of the largest, counted": run_of("Lion-top-k", density=None, k=5),
    "Lion of columns by columns": run_of("Lion-row", dim=1, kernel="column"),
    "reset": run_of("AdamW") | {"reset": 2},
    "cautious": run_of("AdamW", cautious="rescaled"),
    "SCALE by columns": run_of("SCALE", dim=1, cautious="rescaled"),
    "SCALE of columns": run_of("SCALE", normalize="column"),
    "SCALE of columns by columns": run_of("SCALE-momentum", dim=1, normalize="column"),
    "stochastic": run_of("AdamW", dtype=torch.bfloat16, rounding="stochastic", seed=5),
    "stochastic by columns": run_of("AdamW", dim=1, dtype=torch.bfloat16, rounding="stochastic", seed=5),
    "tensor rates": run_of("AdamW", lr=torch.tensor(0.0625), weight_decay=torch.tensor(0.25)),
    "4 bits": run_of("AdamW", state_format="int4", **HALVED),
    "8 bits": run_of("SPAM", state_format="int8", **HALVED),
    "4 bits at random": run_of("Lion", state_format=RANDOM_CODES, dtype=torch.bfloat16, compensation="low_bits", **HALVED),
    "4 bits by columns": run_of("AdamW", dim=1, state_format="int4", shapes=[(8, 256)], whole={"state_format": "fp32"}),
    "kahan and average": run_of("AdamW", dtype=torch.bfloat16, compensation="kahan", ema_decay=0.9),
}


def train_tensors(place: Place, run: dict[str, Any]) -> dict[str, Tensor]:
    """Train parameters that ``place`` puts where they belong; return parameters and states as whole tensors."""
    generator = torch.Generator().manual_seed(0)
    wholes = [torch.randn(shape, generator=generator).to(run["dtype"]) for shape in run["shapes"]]
    params = [nn.Parameter(place(whole)) for whole in wholes]
    optimizer = CASES[run["name"]].make(params, **{"lr": 0.01, **run["options"]})
    gradients = Gradients()
    for step in range(STEPS):
        if step == run.get("reset"):
            optimizer.reset_state(states=["exp_avg"])
        sources = [nn.Parameter(whole) for whole in wholes]
        gradients.fill(sources)
        for p, source in zip(params, sources, strict=True):
            p.grad = place(source.grad)
        optimizer.step()
    found: dict[str, Tensor] = {}
    for i, p in enumerate(params):
        found[f"param {i}"] = full(p.detach())
        found |= {f"{name} {i}": full(value) for name, value in optimizer.state[p].items()}
    return found


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def make_model(width: int = 5, outputs: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, outputs))


def train_model(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(8, 6, generator=generator), torch.randn(8, model[-1].out_features, generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def save(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    dcp.save(contents(model, optimizer), checkpoint_id=path, no_dist=not dist.is_initialized())


def load(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    wanted = contents(model, optimizer)
    dcp.load(wanted, checkpoint_id=path, no_dist=not dist.is_initialized())
    model.load_state_dict(wanted["model"])
    set_optimizer_state_dict(model, optimizer, wanted["optimizer"])


def contents(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {}
    for name, p in model.named_parameters():
        found[f"param {name}"] = full(p.detach())
        found |= {f"{key} {name}": full(value) for key, value in optimizer.state[p].items()}
    return found


def train_with_overflow(rank: int, mesh: DeviceMesh) -> dict[str, dict[str, Tensor]]:
    """Train under GradScaler; at the second step the gradients of rank 0 alone overflow."""
    model = make_model()
    fully_shard(model, mesh=mesh)
    optimizer = optim.AdamW(model.parameters(), lr=torch.tensor(0.01))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    found = {}
    for label, x in (("good", torch.ones(4, 6)), ("overflow", torch.full((4, 6), float("inf") if rank == 0 else 1.0))):
        optimizer.zero_grad()
        scaler.scale(model(x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        found[f"scaler {label}"] = whole_state(model, optimizer) | {"scale": torch.tensor(scaler.get_scale())}
    return found


MODELS = {
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, ema_decay=0.9),
    "StableSPAM": lambda p: optim.StableSPAM(p, lr=0.01),
    "AdamW4bit": lambda p: optim.AdamW4bit(p, lr=0.01, quantize_min_numel=256),
}
# Matrices whose halves are whole blocks, so that checkpoints of one process and of two hold the same tensors.
MODEL_SIZES = {"AdamW4bit": (128, 4)}


def run_shards(rank: int, folder: Path) -> None:
    mesh = init_device_mesh("cpu", (WORLD,))
    found: dict[str, dict[str, Tensor]] = {}
    for label, run in RUNS.items():
        found[label] = train_tensors(lambda whole, dim=run["dim"]: distribute_tensor(whole, mesh, [Shard(dim)]), run)
    split = nn.Parameter(distribute_tensor(torch.ones(4, 6), mesh, [Shard(1)]))
    split.grad = distribute_tensor(torch.ones(4, 6), mesh, [Shard(1)])
    try:
        optim.AdamP([split]).step()
    except RuntimeError as error:
        refusal = str(error)
    for name, make in MODELS.items():
        model = make_model(*MODEL_SIZES.get(name, ()))
        fully_shard(model, mesh=mesh)
        optimizer = make(model.parameters())
        train_model(model, optimizer, 5)
        found[f"model {name}"] = whole_state(model, optimizer)
        save(model, optimizer, folder / f"{name}-from-2")
        train_model(model, optimizer, 3, seed=1)
        found[f"model {name} continued"] = whole_state(model, optimizer)
        resumed = make_model(*MODEL_SIZES.get(name, ()))
        fully_shard(resumed, mesh=mesh)
        again = make(resumed.parameters())
        load(resumed, again, folder / f"{name}-from-1")
        found[f"model {name} loaded"] = whole_state(resumed, again)
        train_model(resumed, again, 3, seed=1)
        found[f"model {name} resumed"] = whole_state(resumed, again)
    found |= train_with_overflow(rank, mesh)
    if rank == 0:
        torch.save(found, folder / "found.pt")
        (folder / "refusal").write_text(refusal)
