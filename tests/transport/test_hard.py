"""Problems on which other solvers stall, to 1e-11 in float64."""

from __future__ import annotations

import pytest
import torch

from momentum import ot
from transport.problems import Problem, assignment, digits, images, marginal_error, points, rounding, simplex

TOLERANCE = 1e-11

HARD = {
    **{
        f"assignment-{seed}-{eta}": lambda seed=seed, eta=eta: assignment(500, 1 / eta, seed)
        for seed in range(10)
        for eta in (100, 1200, 10000)
    },
    **{
        f"digits-L{p}-{first}-{second}": lambda p=p, first=first, second=second: digits(first, second, p, 1 / 1200)
        for p in (1, 2)
        for first, second in ((0, 7), (3, 22), (11, 40))
    },
    **{f"images-L{p}-{seed}": lambda p=p, seed=seed: images(16, 1 / 1200, seed, p) for p in (1, 2) for seed in (0, 5)},
    **{f"points-{eta}": lambda eta=eta: points(300, 300, 1 / eta, 1) for eta in (1000, 5000)},
    "points-wide": lambda: points(40, 700, 1 / 2000, 1),
    "points-high": lambda: points(700, 40, 1 / 2000, 1),
    "points-10d": lambda: points(200, 200, 1 / 300, 1, d=10),
}


def check(problem: Problem, result: ot.Result) -> None:
    assert result.status == ot.Status.CONVERGED
    assert result.error <= TOLERANCE
    assert marginal_error(problem, result.plan()) <= TOLERANCE + rounding(problem)
    assert result.sweeps <= 1000


@pytest.mark.parametrize("method", ["sns", "auto"])
@pytest.mark.parametrize("name", HARD)
def test_converges(name, method):
    problem = HARD[name]()
    check(problem, problem.solve(method=method, tol=TOLERANCE))


@pytest.mark.parametrize("method", ["sns", "auto"])
def test_tiny_marginals(method):
    a, b = simplex(60, 1), simplex(80, 2)
    a[::7], b[::5], a[3] = 1e-12, 1e-12, 1e-200
    a, b = a / a.sum(), b / b.sum()
    problem = Problem(points(60, 80, 1, 1).cost, a, b, 1 / 1000)
    result = problem.solve(method=method, tol=TOLERANCE)
    check(problem, result)
    relative = (result.plan().sum(1) / a - 1).abs()
    assert relative[a > 1e-100].max() < 1  # no tiny row is lost in the total error


@pytest.mark.parametrize("method", ["sns", "auto", "sinkhorn"])
def test_duplicate_points(method):
    """Many plans have the same cost; the regularised one is symmetric in the copies."""
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    y = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result = ot.solve(ot.Points(x, y), reg=0.005, method=method, tol=1e-10, max_sweeps=100_000)
    assert result.status == ot.Status.CONVERGED
    torch.testing.assert_close(result.plan()[:20], result.plan()[20:], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("reg", [1e8, 1e2, 1e-6, 1e-8])
def test_extreme_temperatures(reg):
    """Huge: the product measure. Tiny: what could be reached is said; NaN never."""
    problem = assignment(40, reg, 3)
    result = problem.solve(tol=1e-12, max_sweeps=2000)
    assert result.plan().isfinite().all()
    assert result.f.isfinite().all()
    if reg > 1:
        assert result.status == ot.Status.CONVERGED
        torch.testing.assert_close(result.plan(), problem.a[:, None] * problem.b, rtol=2 / reg, atol=0)
    else:
        reached = marginal_error(problem, result.plan())
        assert abs(reached - result.error.item()) <= rounding(problem)
        assert (result.status == ot.Status.CONVERGED) == (result.error <= 1e-12).item()
