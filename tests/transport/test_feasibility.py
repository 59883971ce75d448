"""Forbidden entries without a plan: told where there is none, never where there is one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from momentum import _ops, ot
from transport.problems import Problem, forbidden, points, shortage, simplex, uniform_weights

INF = torch.inf
METHODS = ["sinkhorn", "sns", "auto"]


@pytest.fixture
def solve(backend):
    """Yield `ot.solve` on the backend; its inputs are moved there."""
    backend.op("ot_solve")

    def call(cost, a, b, reg, **options):
        return ot.solve(*(x.to(backend.device) for x in (cost, a, b)), reg, **options)

    with _ops.namespace(backend.namespace):
        yield call


@pytest.mark.parametrize("method", METHODS)
def test_every_set_of_rows(solve, method):
    """Small problems, where all sets of rows can be tried: infeasible exactly where one of them lacks columns."""
    seen = Counter()
    for seed in range(80):
        n, m = 3 + seed % 5, 3 + seed // 2 % 6
        problem = forbidden(n, m, (0.3, 0.5, 0.65, 0.8)[seed % 4], seed, equal=seed % 3 == 0)
        missing = shortage(problem)
        result = solve(problem.cost, problem.a, problem.b, (1.0, 0.02)[seed % 2], method=method, tol=1e-9)
        assert missing > 1e-7 or missing < 1e-14  # none is on the edge
        assert (result.status == ot.Status.INFEASIBLE) == (missing > 1e-7), seed
        seen[missing > 1e-7] += 1
        if missing > 1e-7:
            assert result.value == INF
            assert result.f.abs().sum() == result.g.abs().sum() == 0
            assert result.error >= missing - 1e-12
            assert result.sweeps <= 300
    assert min(seen.values()) > 20


@pytest.mark.parametrize("method", METHODS)
def test_a_wall_between_two_halves(solve, method):
    """No entry between two parts: a plan exists exactly where their masses agree, here and there up to a millionth."""
    cost = points(30, 40, 1, 1).cost.clone()
    cost[:10, 15:] = cost[10:, :15] = INF
    a, b = simplex(30, 1), simplex(40, 2)
    for share, status in ((0.3, ot.Status.CONVERGED), (0.3 + 1e-6, ot.Status.INFEASIBLE), (0.5, ot.Status.INFEASIBLE)):
        b[:15] *= share / b[:15].sum()
        b[15:] *= (1 - share) / b[15:].sum()
        a[:10] *= 0.3 / a[:10].sum()
        a[10:] *= 0.7 / a[10:].sum()
        result = solve(cost, a, b, 0.05, method=method, tol=1e-9)
        assert result.status == status, share


def test_what_is_missing_is_held_against_the_tolerance(solve):
    """A shortage that the tolerance forgives is none."""
    cost = torch.tensor([[0.0, INF], [1.0, 0.0]], dtype=torch.float64)
    a, b = torch.tensor([0.5 + 1e-6, 0.5 - 1e-6]).double(), torch.tensor([0.5, 0.5]).double()
    assert solve(cost, a, b, 0.1, tol=1e-5).status == ot.Status.CONVERGED
    assert solve(cost, a, b, 0.1, tol=1e-7).status == ot.Status.INFEASIBLE


@pytest.mark.parametrize("method", METHODS)
def test_barely_feasible(solve, method):
    """A triangular pattern has the identity as its only plan, which sweeps near like 1 / sweeps: slow is not impossible."""
    n = 12
    cost = torch.zeros(n, n, dtype=torch.float64).masked_fill(torch.ones(n, n).triu(1) > 0, INF)
    result = solve(cost, uniform_weights(n), uniform_weights(n), 0.1, method=method, tol=1e-10, max_sweeps=2000)
    assert result.status != ot.Status.INFEASIBLE
    assert result.value.isfinite()


def test_zero_marginals_leave_rows_out(solve):
    """A row without mass needs no column, and a column without mass gives none."""
    cost = torch.zeros(3, 3, dtype=torch.float64)
    cost[0, 1:] = cost[1, 1:] = INF
    a, b = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.5, 0.25, 0.25]).double()
    assert solve(cost, a, b, 0.1).status == ot.Status.INFEASIBLE
    a = torch.tensor([0.5, 0.0, 0.5]).double()
    assert solve(cost, a, b, 0.1).status == ot.Status.CONVERGED


def test_a_batch_is_told_apart(solve):
    problems = [forbidden(8, 9, 0.6, seed) for seed in range(12)]
    result = solve(*(torch.stack([getattr(p, name) for p in problems]) for name in ("cost", "a", "b")), 0.05)
    expected = [ot.Status.INFEASIBLE if shortage(p) > 1e-7 else ot.Status.CONVERGED for p in problems]
    assert result.status.tolist() == expected
    assert len(set(expected)) == 2


def test_large(solve):
    """More rows than a block takes at once."""
    cost = points(530, 500, 1, 1).cost.clone()
    cost[:200, 150:] = INF
    a, b = uniform_weights(530), uniform_weights(500)
    problem = Problem(cost, a, b, 0.05)
    assert solve(problem.cost, a, b, 0.05, method="sinkhorn", tol=1e-4).status == ot.Status.INFEASIBLE
    cost[:200, 150:200] = 1.0
    assert solve(problem.cost, a, b, 0.05, method="sinkhorn", tol=1e-3).status == ot.Status.CONVERGED
