"""Envelope and implicit gradients against finite differences."""

from __future__ import annotations

import pytest
import torch

from momentum import ot
from transport.problems import clouds, points


def leaves(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


def solve(cost, s, t, **options):
    """Marginals from a softmax, so that their masses stay equal."""
    return ot.solve(cost, s.softmax(-1), t.softmax(-1), options.pop("reg", 0.1), method="sns", tol=1e-14, **options)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (1, 4)])
def test_value(shape):
    inputs = leaves(shape, shape[:1], shape[1:])
    assert torch.autograd.gradcheck(lambda *z: solve(*z).value, inputs)


def test_value_of_a_batch_with_shared_cost():
    inputs = leaves((5, 6), (3, 5), (6,))
    assert torch.autograd.gradcheck(lambda *z: solve(*z, reg=[0.1, 0.2, 0.5]).value, inputs)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_value_of_points(metric, monkeypatch):
    monkeypatch.setattr("momentum.ot.result.BLOCK_ENTRIES", 10)
    inputs = leaves((5, 2), (6, 2), (5,), (6,))
    assert torch.autograd.gradcheck(lambda x, y, s, t: solve(ot.Points(x, y, metric), s, t).value, inputs)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (2, 3, 3)])
def test_implicit(shape):
    inputs = leaves(shape, (*shape[:-2], shape[-2]), (*shape[:-2], shape[-1]))

    def everything(*z):
        result = solve(*z, grad="implicit")
        return result.value, result.f, result.g, result.plan()

    assert torch.autograd.gradcheck(everything, inputs)


def test_implicit_of_points():
    inputs = leaves((4, 2), (5, 2), (4,), (5,))
    assert torch.autograd.gradcheck(lambda x, y, s, t: solve(ot.Points(x, y), s, t, grad="implicit").plan(), inputs)


def test_implicit_with_zero_marginals_and_forbidden_entries():
    (cost,) = leaves((5, 6))
    a, b = torch.tensor([0.5, 0, 0.2, 0.3, 0.0]).double(), torch.tensor([0.1, 0.4, 0, 0.3, 0.1, 0.1]).double()
    forbidden = torch.zeros(5, 6, dtype=torch.bool)
    forbidden[0, 1] = forbidden[3, 3] = True

    def plan(cost):
        result = ot.solve(cost.masked_fill(forbidden, torch.inf), a, b, 0.1, tol=1e-14, method="sns", grad="implicit")
        return result.plan().nan_to_num()

    assert torch.autograd.gradcheck(plan, [cost])


def test_disconnected_plan():
    """At a low temperature the plan falls apart, and the linearised system is singular once per part."""
    cost = torch.full((4, 4), 1.0, dtype=torch.float64)
    cost[:2, :2] = cost[2:, 2:] = torch.tensor([[0.0, 0.1], [0.2, 0.1]])
    cost = cost.requires_grad_()
    function = lambda c: ot.solve(c, reg=0.01, tol=1e-14, method="sns", grad="implicit").plan()  # noqa: E731
    assert torch.autograd.gradcheck(function, [cost], eps=1e-7, atol=1e-4)


def test_detach_and_no_grad():
    (cost,) = leaves((5, 7))
    assert not ot.solve(cost, reg=0.1, grad="detach").value.requires_grad
    result = ot.solve(cost, reg=0.1)
    assert result.value.requires_grad
    assert not result.f.requires_grad
    with torch.no_grad():
        assert not ot.solve(cost, reg=0.1).value.requires_grad


def test_single_precision_gets_its_dtype():
    x, y = (cloud.float().requires_grad_() for cloud in clouds(6, 7, 3, 1))
    ot.solve(ot.Points(x, y), reg=0.1).value.backward()
    assert x.grad.dtype == torch.float32
    cost = points(6, 7, 0.1, 1).cost.float().requires_grad_()
    result = ot.solve(cost, reg=0.1)
    result.value.backward()
    torch.testing.assert_close(cost.grad, result.plan().detach().float())


def test_descent_on_points_matches_them():
    """Moving a cloud along the gradient brings it onto the other."""
    x, y = clouds(30, 30, 2, 4)
    x = x.requires_grad_()
    for _ in range(60):
        value = ot.solve(ot.Points(x, y), reg=1e-3).value
        (gradient,) = torch.autograd.grad(value, x)
        x = (x - 5 * gradient).detach().requires_grad_()
    assert ot.solve(ot.Points(x, y), reg=1e-3).cost() < 1e-3
