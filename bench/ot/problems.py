"""The problems that are timed, from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """One transport problem in float64."""

    cost: Tensor
    a: Tensor
    b: Tensor
    reg: float

    def error(self, plan: Tensor) -> float:
        """The L1 error of both marginals."""
        return ((plan.sum(1) - self.a).abs().sum() + (plan.sum(0) - self.b).abs().sum()).item()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _weights(n: int) -> Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


def _simplex(n: int, seed: int) -> Tensor:
    weights = -torch.rand(n, 2, generator=_generator(seed), dtype=torch.float64).log().sum(1)
    return weights / weights.sum()


def assignment(n: int, eta: float, seed: int = 0) -> Problem:
    """Costs uniform in [0, 1], uniform marginals."""
    cost = torch.rand(n, n, generator=_generator(seed), dtype=torch.float64)
    return Problem(cost, _weights(n), _weights(n), 1 / eta)


def points(n: int, eta: float, seed: int = 0) -> Problem:
    """Squared distances between points of two squares, at most 1; random marginals."""
    x = torch.rand(n, 2, generator=_generator(seed), dtype=torch.float64)
    y = 0.1 + 0.8 * torch.rand(n, 2, generator=_generator(seed + 1), dtype=torch.float64)
    cost = torch.cdist(x, y).square()
    return Problem(cost / cost.max(), _simplex(n, seed + 2), _simplex(n, seed + 3), 1 / eta)


def digits(p: int, eta: float, first: int = 0, second: int = 7) -> Problem:
    """Two digits of scikit-learn at 28 x 28 pixels, 0.1 added to each, the costs |.|_p^p between pixels, at most 1."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images[[first, second]])[:, None] / 16
    large = torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear", align_corners=True)[:, 0] + 0.1
    a, b = (image.flatten() / image.sum() for image in large)
    axis = torch.arange(28, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
    cost = (grid[:, None] - grid).abs().pow(p).sum(-1)
    return Problem(cost / cost.max(), a, b, 1 / eta)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "assignment n=500, reg 1/100": lambda: assignment(500, 100),
    "assignment n=500, reg 1/1200": lambda: assignment(500, 1200),
    "assignment n=500, reg 1/10000": lambda: assignment(500, 10000),
    "points n=500, reg 1/1200": lambda: points(500, 1200),
    "points n=500, reg 1/10000": lambda: points(500, 10000),
    "digits n=784, L2 squared, reg 1/1200": lambda: digits(2, 1200),
    "digits n=784, L1, reg 1/1200": lambda: digits(1, 1200),
}
