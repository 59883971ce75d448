"""Solutions against closed forms, exact assignments and the reference; invariances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from momentum import ot, reference
from transport.problems import assignment, clouds, marginal_error, points, rounding, simplex, uniform_weights

METHODS = ["sinkhorn", "sns", "auto"]


@pytest.mark.parametrize("method", METHODS)
def test_two_by_two(method):
    """P = [[p, 1/2 - p], ...] with p / (1/2 - p) = exp((C01 + C10 - C00 - C11) / (2 reg))."""
    cost, reg = torch.tensor([[0.3, 1.0], [0.7, 0.1]], dtype=torch.float64), 0.25
    odds = math.exp((1.0 + 0.7 - 0.3 - 0.1) / (2 * reg))
    p = 0.5 * odds / (1 + odds)
    expected = torch.tensor([[p, 0.5 - p], [0.5 - p, p]], dtype=torch.float64)
    result = ot.solve(cost, reg=reg, method=method, tol=1e-13)
    torch.testing.assert_close(result.plan(), expected, rtol=1e-12, atol=0)
    value = (expected * cost).sum() + reg * (expected * (expected * 4).log()).sum()
    torch.testing.assert_close(result.value, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (6, 1), (1, 4000)])
def test_one_row_or_column_has_one_plan(method, n, m):
    a, b = simplex(n, 1), simplex(m, 2)
    cost = torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = ot.solve(cost, a, b, 1e-3, method=method, tol=1e-12)
    torch.testing.assert_close(result.plan(), a[:, None] * b, rtol=1e-11, atol=0)
    torch.testing.assert_close(result.value, (a[:, None] * b * cost).sum(), rtol=1e-11, atol=0)
    assert result.status == ot.Status.CONVERGED


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(7, 7), (64, 64), (33, 100), (130, 17), (8, 1000)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reference(method, shape, dtype):
    """The potentials of many sweeps in the reference, for the cost as it is stored."""
    problem = points(*shape, 0.05, 1)
    cost = problem.cost.to(dtype)
    x, y = reference.sinkhorn(cost, problem.a, problem.b, problem.reg, 500)
    result = ot.solve(cost, problem.a, problem.b, problem.reg, method=method, tol=1e-12)
    assert result.status == ot.Status.CONVERGED
    torch.testing.assert_close(result.plan(), reference.transport_plan(cost, x, y, problem.reg), rtol=1e-8, atol=1e-12)
    value = reference.transport_value(cost, problem.a, problem.b, x, y, problem.reg)
    torch.testing.assert_close(result.value, value, rtol=1e-10, atol=0)
    torch.testing.assert_close(problem.a @ result.f, problem.b @ result.g, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.cost(), (result.plan() * cost).sum(), rtol=1e-12, atol=0)
    assert marginal_error(problem, result.plan()) <= 1e-12 + rounding(problem)
    assert result.error <= 1e-12


def test_sweeps_are_the_reference_sweeps():
    """`sinkhorn` with a budget of k sweeps has made k row updates and k - 1 column updates, from the product measure."""
    problem = points(20, 30, 0.02, 5)
    x, y = reference.sinkhorn(problem.cost, problem.a, problem.b, problem.reg, 4)
    y = problem.b.log() - (x[:, None] - problem.cost / problem.reg).logsumexp(0)
    x = problem.a.log() - (y - problem.cost / problem.reg).logsumexp(1)
    result = problem.solve(method="sinkhorn", tol=0, max_sweeps=5)
    assert (result.sweeps, result.status) == (5, ot.Status.MAX_SWEEPS)
    torch.testing.assert_close(result.plan(), reference.transport_plan(problem.cost, x, y, problem.reg), rtol=1e-11, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_small_reg_finds_the_best_permutation(seed):
    n = 6
    problem = assignment(n, 1e-4, seed)
    best = min(itertools.permutations(range(n)), key=lambda p: sum(problem.cost[i, j].item() for i, j in enumerate(p)))
    result = problem.solve(tol=1e-11)
    assert result.plan().argmax(1).tolist() == list(best)
    optimum = sum(problem.cost[i, j].item() for i, j in enumerate(best)) / n
    assert abs(result.cost().item() - optimum) <= 1e-4 * math.log(n)


@pytest.mark.parametrize("n", [50, 200])
def test_duality_certifies_large_assignments(n):
    """Rounding the plan gives a permutation, the potentials a lower bound: together they prove it optimal."""
    problem = assignment(n, 1e-5, n)
    result = problem.solve(tol=1e-9)
    columns = result.plan().argmax(1)
    assert columns.unique().numel() == n
    primal = problem.cost[torch.arange(n), columns].mean()
    # Potentials made feasible: no f_i + g_j above its cost.
    g = result.g
    f = (problem.cost - g).amin(1)
    assert primal - (f.mean() + g.mean()) <= 1e-5 * math.log(n)


def test_line_with_squared_costs_is_sorted():
    x = torch.rand(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.rand(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2
    result = ot.solve(ot.Points(x, y), reg=1e-5, tol=1e-9)
    exact = (x.sort(0).values - y.sort(0).values).square().mean()
    assert abs(result.cost() - exact) <= 1e-5 * math.log(40)


def test_gaussians():
    """The regularised cost between samples of two Gaussians nears the closed form (Janati et al., NeurIPS 2020)."""
    n, reg, s, t, shift = 1500, 0.5, 1.0, 0.5, 1.0
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    result = ot.solve(ot.Points(s * quantiles, t * quantiles + shift), reg=reg, tol=1e-8)
    # With reg = 2 sigma^2 and D = sqrt(4 s^2 t^2 + sigma^4).
    variance = reg / 2
    d = math.sqrt(4 * s**2 * t**2 + variance**2)
    expected = shift**2 + s**2 + t**2 - d + variance * (1 - math.log(2 * variance)) + variance * math.log(d + variance)
    assert abs(result.value.item() - expected) < 0.01


@pytest.mark.parametrize("method", ["sns", "sinkhorn"])
class TestInvariances:
    def solve(self, problem, method, **changes):
        fields = {"cost": problem.cost, "a": problem.a, "b": problem.b, "reg": problem.reg, **changes}
        return ot.solve(**fields, method=method, tol=1e-13)

    def test_transposition(self, method):
        problem = points(23, 31, 0.03, 7)
        plain = self.solve(problem, method)
        swapped = self.solve(problem, method, cost=problem.cost.mT, a=problem.b, b=problem.a)
        torch.testing.assert_close(swapped.plan(), plain.plan().mT, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(swapped.f, plain.g, rtol=1e-10, atol=1e-12)

    def test_shifted_costs_shift_potentials_only(self, method):
        problem = points(23, 31, 0.03, 7)
        s, t = simplex(23, 1) * 40, simplex(31, 2) * 60
        plain, shifted = self.solve(problem, method), self.solve(problem, method, cost=problem.cost + s[:, None] + t)
        torch.testing.assert_close(shifted.plan(), plain.plan(), rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(shifted.value, plain.value + problem.a @ s + problem.b @ t, rtol=1e-11, atol=0)

    def test_permutation(self, method):
        problem = points(23, 31, 0.03, 7)
        rows = torch.randperm(23, generator=torch.Generator().manual_seed(0))
        plain, moved = self.solve(problem, method), self.solve(problem, method, cost=problem.cost[rows], a=problem.a[rows])
        torch.testing.assert_close(moved.plan(), plain.plan()[rows], rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("scale", [1e-3, 1e3, 1e12, 1e-12])
    def test_scale_of_cost_and_reg(self, method, scale):
        problem = points(23, 31, 0.03, 7)
        plain = self.solve(problem, method)
        scaled = self.solve(problem, method, cost=problem.cost * scale, reg=problem.reg * scale)
        torch.testing.assert_close(scaled.plan(), plain.plan(), rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(scaled.value, plain.value * scale, rtol=1e-11, atol=0)

    @pytest.mark.parametrize("mass", [1e-9, 1e9])
    def test_scale_of_mass(self, method, mass):
        problem = points(23, 31, 0.03, 7)
        plain = self.solve(problem, method)
        scaled = self.solve(problem, method, a=problem.a * mass, b=problem.b * mass)
        torch.testing.assert_close(scaled.plan() / mass, plain.plan(), rtol=1e-9, atol=1e-14)
        assert scaled.status == ot.Status.CONVERGED


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 3])
def test_points_are_their_matrix(metric, dtype, d):
    x, y = (cloud.to(dtype) for cloud in clouds(40, 30, d, 1))
    distance = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    cost = distance.square() if metric == "sqeuclidean" else distance
    a, b = simplex(40, 3), simplex(30, 4)
    cloud = ot.solve(ot.Points(x, y, metric), a, b, 0.02, tol=1e-12)
    matrix = ot.solve(cost, a, b, 0.02, tol=1e-12)
    torch.testing.assert_close(cloud.plan(), matrix.plan(), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(cloud.value, matrix.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(cloud.cost(), matrix.cost(), rtol=1e-10, atol=0)


def test_plan_in_parts(monkeypatch):
    monkeypatch.setattr("momentum.ot.result.BLOCK_ENTRIES", 200)  # several blocks of rows
    problem = points(57, 43, 0.005, 2)
    result = problem.solve()
    plan = result.plan()
    v, w = torch.randn(43, 3, dtype=torch.float64), torch.randn(57, 2, dtype=torch.float64)
    torch.testing.assert_close(result.apply(v), plan @ v)
    torch.testing.assert_close(result.apply_transposed(w), plan.mT @ w)
    for least in (0.0, 1e-6, 0.1):
        sparse = result.plan_csr(least).to_dense()
        kept = sparse > 0
        assert torch.equal(sparse[kept], plan[kept])
        dropped = plan - sparse
        assert (dropped.sum(1) <= least * problem.a).all()
        assert (dropped.sum(0) <= least * problem.b).all()
    assert result.plan_csr(1e-6).values().numel() < plan.numel()


def test_uniform_is_the_default():
    cost = points(5, 9, 0.1, 1).cost
    given = ot.solve(cost, uniform_weights(5), uniform_weights(9), 0.1)
    assert torch.equal(ot.solve(cost, reg=0.1).f, given.f)
