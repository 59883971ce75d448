"""The reference itself: derivatives of the objective, and the matrix of a Newton step."""

from __future__ import annotations

import pytest
import torch

from momentum import reference
from transport.problems import points


@pytest.fixture
def state():
    problem = points(9, 12, 0.05, 3)
    return problem, *reference.sinkhorn(problem.cost, problem.a, problem.b, problem.reg, 3)


def objective(problem, z):
    x, y = z.split([len(problem.a), len(problem.b)])
    return reference.transport_objective(problem.cost, problem.a, problem.b, x, y, problem.reg)


def test_gradient_is_what_the_marginals_lack(state):
    problem, x, y = state
    z = torch.cat([x, y]).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(problem, z), z)
    plan = reference.transport_plan(problem.cost, x, y, problem.reg)
    torch.testing.assert_close(gradient, torch.cat([problem.a - plan.sum(1), problem.b - plan.sum(0)]))
    assert torch.autograd.gradcheck(lambda z: objective(problem, z), z)


def test_newton_matrix_is_minus_the_hessian(state):
    problem, x, y = state
    plan = reference.transport_plan(problem.cost, x, y, problem.reg)
    hessian = torch.autograd.functional.hessian(lambda z: objective(problem, z), torch.cat([x, y]))
    matrix = reference.newton_matrix(plan)
    torch.testing.assert_close(matrix, -hessian)
    null = torch.cat([torch.ones_like(x), -torch.ones_like(y)])
    assert (matrix @ null).abs().max() <= 1e-15


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.9])
def test_dense_diagonal_keeps_any_sparse_matrix_definite(state, seed, density):
    problem, x, y = state
    plan = reference.transport_plan(problem.cost, x, y, problem.reg)
    kept = torch.rand(plan.shape, generator=torch.Generator().manual_seed(seed)) < density
    matrix = reference.newton_matrix(plan, kept)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    gradient = torch.cat([problem.a - plan.sum(1), problem.b - plan.sum(0)])
    assert gradient @ torch.linalg.solve(matrix, gradient) > 0  # an ascent direction
