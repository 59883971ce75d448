"""Transport problems that the tests share, all from fixed seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    cost: Tensor
    a: Tensor
    b: Tensor
    reg: float

    def solve(self, **options):
        from momentum import ot

        return ot.solve(self.cost, self.a, self.b, self.reg, **options)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simplex(n: int, seed: int, concentration: float = 2.0) -> Tensor:
    """Weights as of a Dirichlet distribution: normalised Gamma variables of integer shape."""
    uniform = torch.rand(n, max(1, int(concentration)), generator=generator(seed), dtype=torch.float64)
    weights = -uniform.clamp(min=1e-300).log().sum(1)
    return weights / weights.sum()


def uniform_weights(n: int) -> Tensor:
    return torch.full((n,), 1.0 / n, dtype=torch.float64)


def assignment(n: int, reg: float, seed: int) -> Problem:
    """Costs uniform in [0, 1], uniform marginals: a random assignment problem."""
    cost = torch.rand(n, n, generator=generator(seed), dtype=torch.float64)
    return Problem(cost, uniform_weights(n), uniform_weights(n), reg)


def clouds(n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, d, generator=generator(seed), dtype=torch.float64)
    return x, 0.1 + 0.8 * torch.rand(m, d, generator=generator(seed + 1000), dtype=torch.float64)


def points(n: int, m: int, reg: float, seed: int, d: int = 2) -> Problem:
    """Squared distances in the unit square, scaled to at most 1, and random marginals."""
    x, y = clouds(n, m, d, seed)
    cost = torch.cdist(x, y).square()
    return Problem(cost / cost.max(), simplex(n, seed + 1), simplex(m, seed + 2), reg)


def images(side: int, reg: float, seed: int, p: int) -> Problem:
    """Two images of strokes on a grid with the costs |.|_p^p between pixels, scaled to at most 1."""

    def strokes(seed: int) -> Tensor:
        ink = torch.full((side, side), 0.1, dtype=torch.float64)
        at = torch.rand(4, 2, generator=generator(seed), dtype=torch.float64) * side
        line = torch.linspace(0, 1, 4 * side, dtype=torch.float64)[:, None]
        grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).double()
        for start, end in itertools.pairwise(at):
            path = start + line * (end - start)
            distance = torch.cdist(grid.view(-1, 2), path).amin(1).view(side, side)
            ink += (1.5 - distance).clamp(min=0, max=1)
        return (ink / ink.sum()).flatten()

    axis = torch.arange(side, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
    difference = (grid[:, None] - grid).abs()
    cost = difference.pow(p).sum(-1)
    return Problem(cost / cost.max(), strokes(seed), strokes(seed + 1), reg)


def digits(first: int, second: int, p: int, reg: float) -> Problem:
    """Two digits of scikit-learn, 28 x 28 with 0.1 added to every pixel, and the costs |.|_p^p between pixels, at most 1."""
    import pytest

    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    small = torch.from_numpy(datasets.load_digits().images[[first, second]])[:, None] / 16
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=True)[:, 0] + 0.1
    a, b = (image.flatten() / image.sum() for image in large)
    axis = torch.arange(28, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
    cost = (grid[:, None] - grid).abs().pow(p).sum(-1)
    return Problem(cost / cost.max(), a, b, reg)


def forbidden(n: int, m: int, share: float, seed: int, equal: bool = False) -> Problem:
    """Random costs of which a share is infinite, some entry of every row and column left; random or equal marginals."""
    chance = generator(seed)
    closed = torch.rand(n, m, generator=chance) < share
    for i in range(n):
        closed[i, int(torch.randint(m, (), generator=chance))] &= not closed[i].all()
    for j in range(m):
        closed[int(torch.randint(n, (), generator=chance)), j] &= not closed[:, j].all()
    cost = torch.rand(n, m, generator=chance, dtype=torch.float64).masked_fill(closed, torch.inf)
    if equal:
        return Problem(cost, uniform_weights(n), uniform_weights(m), 1.0)
    return Problem(cost, simplex(n, seed + 1), simplex(m, seed + 2), 1.0)


def shortage(problem: Problem) -> float:
    """The largest a(S) - b(N(S)) over all sets S of rows, by trying each: every plan has at least this error (Hall)."""
    n = len(problem.a)
    reached = [problem.cost[i].isfinite() for i in range(n)]
    worst = 0.0
    for size in range(1, n + 1):
        for rows in itertools.combinations(range(n), size):
            columns = torch.stack([reached[i] for i in rows]).any(0)
            worst = max(worst, (problem.a[list(rows)].sum() - problem.b[columns].sum()).item())
    return worst


def marginal_error(problem: Problem, plan: Tensor) -> float:
    """The L1 error of both marginals, relative to the mass."""
    error = (plan.sum(1) - problem.a).abs().sum() + (plan.sum(0) - problem.b).abs().sum()
    return (error / problem.a.sum()).item()


def rounding(problem: Problem) -> float:
    """What the rounding of exponents alone can make of the error: each is a sum of numbers up to max|C| / reg."""
    finite = problem.cost[problem.cost.isfinite()].abs().max().item()
    return 16 * 2.0**-53 * max(1.0, finite / problem.reg)
