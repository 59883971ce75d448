"""One row per optimizer: how to make it, and its twin in torch where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from momentum import optim

Make = Callable[..., torch.optim.Optimizer]

SHAPES = [(7, 5), (33,), (), (0,), (3, 2, 2), (1,)]


def scale(params: Iterable[Tensor], **options: Any) -> optim.SCALE:
    """Return SCALE with the matrices by row and the rest by AdamW."""
    params = list(params)
    matrices = {"params": [p for p in params if p.ndim >= 2]}
    rest = {"params": [p for p in params if p.ndim < 2], "normalize": None}
    return optim.SCALE([group for group in (matrices, rest) if group["params"]], **options)


@dataclass(frozen=True)
class Case:
    """An optimizer under test.

    Attributes
    ----------
    make
        Called with parameters and common options.
    twin
        The same in torch.
    """

    make: Make
    twin: Make | None = None


def pair(name: str, **options: Any) -> Case:
    def ours(params: Any, **common: Any) -> torch.optim.Optimizer:
        return getattr(optim, name)(params, **{**options, **common})

    def theirs(params: Any, **common: Any) -> torch.optim.Optimizer:
        return getattr(torch.optim, name)(params, **{**options, **common})

    return Case(ours, theirs if hasattr(torch.optim, name) and "orthograd" not in options else None)


CASES = {
    "Adam": pair("Adam", weight_decay=0.1),
    "Adam-amsgrad": pair("Adam", amsgrad=True, betas=(0.8, 0.9), eps=1e-6),
    "Adam-decoupled": pair("Adam", decoupled_weight_decay=True, weight_decay=0.1),
    "AdamW": pair("AdamW"),
    "AdamW-amsgrad": pair("AdamW", amsgrad=True),
    "AdamW-maximize": pair("AdamW", maximize=True, weight_decay=0.1),
    "SGD": pair("SGD", weight_decay=0.1),
    "SGD-momentum": pair("SGD", momentum=0.9, dampening=0.3),
    "SGD-nesterov": pair("SGD", momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
    "Lion": pair("Lion", weight_decay=0.1, lr=1e-3),
    "Lion-huber": pair("Lion", weight_decay=0.1, lr=1e-3, kernel="huber", threshold=0.5),
    "Lion-l2": pair("Lion", weight_decay=0.1, kernel="l2"),
    "Lion-top-k": pair("Lion", weight_decay=0.1, lr=1e-3, kernel="top_k", density=0.3),
    "Lion-row": pair("Lion", weight_decay=0.1, kernel="row"),
    "NormalizedSGD": pair("NormalizedSGD", nesterov=True),
    "NormalizedSGD-all": pair("NormalizedSGD", scope="all"),
    "SGDSaI": pair("SGDSaI"),
    "AMSGD": pair("AMSGD", weight_decay=0.1),
    "AMAdamW": pair("AMAdamW", pull=0.5),
    "AdamP": pair("AdamP", weight_decay=0.1, delta=2.0),
    "SGDP": pair("SGDP", momentum=0.9, nesterov=True, weight_decay=0.1, delta=2.0),
    "AdamW-orthograd": pair("AdamW", orthograd=True),
    "StableSPAM-orthograd": pair("StableSPAM", weight_decay=0.1, orthograd="projected"),
    "AdaBelief": pair("AdaBelief", weight_decay=0.1),
    "AdaBelief-amsgrad": pair("AdaBelief", amsgrad=True, rectify=False, eps=1e-8),
    "DiffGrad": pair("DiffGrad", weight_decay=0.1),
    "Adan": pair("Adan", weight_decay=0.1),
    "Adan-clipped": pair("Adan", max_grad_norm=1.0, no_prox=True, weight_decay=0.1),
    "SophiaG": pair("SophiaG", batch_size=10),
    "SophiaH": pair("SophiaH", rho=0.5),
    "SPAM": pair("SPAM", weight_decay=0.1, reset_interval=9, warmup_steps=5, accumulation_steps=3, threshold=2.0),
    "StableSPAM": pair("StableSPAM", weight_decay=0.1, reset_interval=9, total_steps=30),
    "SCALE": Case(lambda params, **options: scale(params, **options)),
    "SCALE-momentum": Case(lambda params, **options: scale(params, momentum=0.9, norm="l2", **options)),
}
TWINS = [name for name, case in CASES.items() if case.twin]
CLASSES = [
    "Adam",
    "AdamW",
    "SGD-momentum",
    "Lion",
    "NormalizedSGD",
    "SGDSaI",
    "AMAdamW",
    "AdamP",
    "SGDP",
    "AdamW-orthograd",
    "AdaBelief",
    "DiffGrad",
    "Adan",
    "SophiaG",
    "SophiaH",
    "SPAM",
    "StableSPAM",
    "SCALE-momentum",
]
BETAS = ["Adam", "AdamP", "AdamW", "Lion", "AdaBelief", "DiffGrad", "SPAM", "StableSPAM"]
"""Whose ``betas`` are a pair that its op takes as it is."""


def make_params(
    dtype: torch.dtype = torch.float32, shapes: Iterable[tuple[int, ...]] = SHAPES, seed: int = 0
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


class Gradients:
    """Sets gradients from a stream of random numbers that does not depend on dtypes."""

    def __init__(self, seed: int = 1) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def fill(self, params: Iterable[nn.Parameter], dtype: torch.dtype | None = None) -> None:
        for p in params:
            grad = torch.randn(p.shape, generator=self._generator, dtype=torch.float64)
            p.grad = grad.float().to(dtype or p.dtype).to(p)


def train(optimizer: torch.optim.Optimizer, params: Iterable[nn.Parameter], steps: int, gradients: Gradients) -> None:
    for _ in range(steps):
        gradients.fill(params)
        optimizer.step()


def params_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def snapshot(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all parameters and states, by name."""
    tensors = {}
    for i, p in enumerate(params_of(optimizer)):
        tensors[f"param {i}"] = p.detach().clone()
        for name, value in optimizer.state.get(p, {}).items():
            tensors[f"{name} {i}"] = value.detach().clone()
    return tensors


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name]
        assert value.dtype == other.dtype, name
        assert torch.equal(value, other), name
