"""Derivatives of the optimum: the envelope for the value, the implicit function theorem for the potentials."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from momentum.ot.points import Points
from momentum.ot.result import Problem

RIDGE = 1e-12
"""What keeps the factorisation of the scaled, singular system positive; refinement takes its effect out again."""
REFINEMENTS = 3


def differentiable(problem: Problem, value: Tensor, f: Tensor, g: Tensor, grad: str) -> tuple[Tensor, Tensor, Tensor]:
    """Attach the derivatives that ``grad`` asks for to a solution."""
    cost = problem.cost
    sources = [*((cost.x, cost.y) if isinstance(cost, Points) else (cost,)), problem.a, problem.b]
    if grad == "detach" or not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in sources):
        return value, f, g
    reg = problem.reg
    if isinstance(cost, Points):
        value = _apply(_ValueOfPoints, value, f, g, reg, cost.metric, *sources)
    else:
        value = _apply(_Value, value, f, g, reg, *sources)
    if grad == "implicit":
        matrix = cost.block(0, problem.a.shape[1]) if isinstance(cost, Points) else cost
        f, g = _apply(_Potentials, f, g, reg, matrix, problem.a, problem.b)
    return value, f, g


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


def _sum_to(gradient: Tensor, like: Tensor) -> Tensor:
    """Add up over the batch for a tensor that all problems share."""
    return gradient.sum_to_size(like.shape).to(like.dtype)


class _Value(torch.autograd.Function):
    """The derivative of the value is P for the cost, f and g for the marginals."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, f: Tensor, g: Tensor, reg: Tensor, cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(f, g, reg, cost, a, b)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, g, reg, cost, a, b = ctx.saved_tensors
        grad_cost = None
        if ctx.needs_input_grad[4]:
            problem = Problem(cost, a, b, reg)
            plan = problem.plan_rows(f, g, cost.double(), 0, a.shape[1])
            grad_cost = _sum_to(plan * grad[:, None, None], cost)
        return None, None, None, None, grad_cost, grad[:, None] * f, grad[:, None] * g


class _ValueOfPoints(torch.autograd.Function):
    """The same with the derivative of the cost, in blocks of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        f: Tensor,
        g: Tensor,
        reg: Tensor,
        metric: str,
        x: Tensor,
        y: Tensor,
        a: Tensor,
        b: Tensor,
    ) -> Tensor:
        ctx.metric = metric
        ctx.save_for_backward(f, g, reg, x, y, a, b)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, g, reg, x, y, a, b = ctx.saved_tensors
        with torch.enable_grad():
            leaves = x.detach().requires_grad_(), y.detach().requires_grad_()
            problem = Problem(Points(*leaves, ctx.metric), a.detach(), b.detach(), reg)
            for _, _, plan, cost in problem.blocks(f, g):
                torch.autograd.backward((plan.detach() * grad[:, None, None] * cost).sum())
        return None, None, None, None, None, leaves[0].grad, leaves[1].grad, grad[:, None] * f, grad[:, None] * g


class _Potentials(torch.autograd.Function):
    """Differentiates P(f, g) 1 = a, P(f, g)ᵀ 1 = b and a·f = b·g."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, reg: Tensor, cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(f, g, reg, cost, a, b)
        return f.clone(), g.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_f: Tensor, grad_g: Tensor) -> tuple[Tensor | None, ...]:
        f, g, reg, cost, a, b = ctx.saved_tensors
        temperature = reg[:, None]
        plan = Problem(cost, a, b, reg).plan_rows(f, g, cost.double(), 0, a.shape[1])
        # The constant that makes a·f equal b·g: f - t, g + t with t = (a·f - b·g) / (2 mass).
        share = (grad_g.sum(1) - grad_f.sum(1))[:, None] / (2 * a.sum(1, keepdim=True))
        grad_f, grad_g, grad_a, grad_b = grad_f + share * a, grad_g - share * b, share * f, -share * g
        # With f = reg (x - log a), g = reg (y - log b) and [diag(P 1) P; Pᵀ diag(Pᵀ 1)] d(x, y) = d(a, b) + P dC / reg.
        s, t = solve_newton_system(plan, temperature * grad_f, temperature * grad_g)
        grad_a = grad_a + s - torch.where(a > 0, temperature * grad_f / a.where(a > 0, 1.0), 0.0)
        grad_b = grad_b + t - torch.where(b > 0, temperature * grad_g / b.where(b > 0, 1.0), 0.0)
        grad_cost = None
        if ctx.needs_input_grad[3]:
            grad_cost = _sum_to(plan * (s[:, :, None] + t[:, None, :]) / reg[:, None, None], cost)
        return None, None, None, grad_cost, grad_a, grad_b


def solve_newton_system(plan: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Solve ``[diag(P 1) P; Pᵀ diag(Pᵀ 1)] (s, t) = (p, q)`` densely for right-hand sides with ``Σ p = Σ q``.

    The unknowns of the larger side are eliminated, the matrix of the smaller is scaled to a unit diagonal. It is singular, once
    for each connected component of the plan: a ridge makes it positive definite, and refinement converges to the solution, as
    the right-hand side has no part in the null space.
    """
    if plan.shape[1] > plan.shape[2]:
        t, s = solve_newton_system(plan.mT, q, p)
        return s, t
    rows, columns = plan.sum(2), plan.sum(1)
    scale = torch.where(rows > 0, rows.where(rows > 0, 1.0).rsqrt(), 0.0)
    inverse = torch.where(columns > 0, 1.0 / columns.where(columns > 0, 1.0), 0.0)
    scaled = scale[:, :, None] * plan
    matrix = torch.eye(rows.shape[1], dtype=plan.dtype, device=plan.device) - scaled @ (inverse[:, :, None] * scaled.mT)
    right = scale * p - (scaled @ (inverse * q)[:, :, None])[:, :, 0]
    factor = torch.linalg.cholesky(matrix + RIDGE * torch.eye(rows.shape[1], dtype=plan.dtype, device=plan.device))
    solution = torch.zeros_like(right)
    for _ in range(REFINEMENTS):
        residual = right - (matrix @ solution[:, :, None])[:, :, 0]
        solution = solution + torch.cholesky_solve(residual[:, :, None], factor)[:, :, 0]
    s = scale * solution
    return s, inverse * (q - (plan.mT @ s[:, :, None])[:, :, 0])
