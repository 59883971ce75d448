"""Sinkhorn-Newton-Sparse as published (Tang et al., ICLR 2024, arXiv 2401.12253), in plain torch, for comparison.

Not for use: the fixed number of entries has to be tuned to the problem, and the iteration may stall far from the solution. What
the paper leaves open is chosen here as follows: conjugate gradients without preconditioner to 1e-10 in at most 500 steps, a
step that is halved at most 30 times until the objective grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from momentum.ot.result import Problem, Status


@dataclass(frozen=True)
class Settings:
    """Sinkhorn steps first, then Newton steps on ``entries_per_row * n`` entries of the plan."""

    sinkhorn_steps: int = 20
    newton_steps: int = 50
    entries_per_row: int = 3
    cg_tolerance: float = 1e-10
    cg_steps: int = 500
    halvings: int = 30


def solve_batch(problem: Problem, tol: float, settings: Settings | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve each problem of a batch; the same outputs as the op."""
    settings = settings or Settings()
    count, n = problem.a.shape
    costs = problem.rows(0, n)
    f, g = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
    numbers = torch.zeros(count, 2, dtype=torch.float64, device=f.device)
    counts = torch.zeros(count, 5, dtype=torch.int32, device=f.device)
    for k in range(count):
        rows, columns = problem.a[k] > 0, problem.b[k] > 0
        a, b, reg = problem.a[k][rows], problem.b[k][columns], problem.reg[k].item()
        cost = costs[min(k, len(costs) - 1)][rows][:, columns]
        b = b * (a.sum() / b.sum())
        *_, last = _until(tol, sinkhorn_newton_sparse(cost / reg, a, b, settings))
        f_k, g_k = reg * (last.x - a.log()), reg * (last.y - b.log())
        shift = (a @ f_k - b @ g_k) / (2 * a.sum())
        f[k, rows], g[k, columns] = f_k - shift, g_k + shift
        numbers[k, 0] = a @ (f_k - shift) + b @ (g_k + shift) + reg * (a.sum() - last.plan_mass)
        numbers[k, 1] = last.error
        converged = Status.CONVERGED if last.error <= tol else Status.MAX_SWEEPS
        sweeps = 2 * settings.sinkhorn_steps + last.newton
        counts[k] = torch.tensor([converged, sweeps, last.newton, 0, last.cg], dtype=torch.int32)
    return f, g, numbers, counts


def _until(tol: float, iterates: Iterator[Iterate]) -> Iterator[Iterate]:
    for iterate in iterates:
        yield iterate
        if iterate.error <= tol:
            return


@dataclass(frozen=True)
class Iterate:
    """Potentials over reg, relative to the counting measure, the L1 error, and the steps so far."""

    x: Tensor
    y: Tensor
    error: float
    newton: int
    cg: int
    plan_mass: Tensor


def sinkhorn_newton_sparse(cost: Tensor, a: Tensor, b: Tensor, settings: Settings) -> Iterator[Iterate]:
    """Yield the iterate after the Sinkhorn steps and after each Newton step, for the cost over reg."""
    mass = a.sum()
    x, y = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(settings.sinkhorn_steps):
        x = a.log() - (y - cost).logsumexp(1)
        y = b.log() - (x[:, None] - cost).logsumexp(0)
    steps = 0
    for newton in range(settings.newton_steps + 1):
        plan = (x[:, None] + y - cost).exp()
        gradient = torch.cat([a - plan.sum(1), b - plan.sum(0)])
        yield Iterate(x, y, float(gradient.abs().sum() / mass), newton, steps, plan.sum())
        keep = min(settings.entries_per_row * len(a), plan.numel())
        where = plan.flatten().topk(keep).indices
        sparse = torch.zeros_like(plan).flatten()
        sparse[where] = plan.flatten()[where]
        direction, used = _conjugate_gradients(sparse.view_as(plan), plan, gradient, settings)
        steps += used
        before, alpha = a @ x + b @ y - plan.sum(), 1.0
        dx, dy = direction[: len(a)], direction[len(a) :]
        for _ in range(settings.halvings):
            after = (
                a @ (x + alpha * dx)
                + b @ (y + alpha * dy)
                - (x[:, None] + alpha * dx[:, None] + y + alpha * dy - cost).exp().sum()
            )
            if after > before:
                break
            alpha /= 2
        x, y = x + alpha * dx, y + alpha * dy


def _conjugate_gradients(sparse: Tensor, plan: Tensor, right: Tensor, settings: Settings) -> tuple[Tensor, int]:
    n = len(plan)
    diagonal = torch.cat([plan.sum(1), plan.sum(0)])

    def apply(v: Tensor) -> Tensor:
        return diagonal * v + torch.cat([sparse @ v[n:], sparse.mT @ v[:n]])

    solution, residual = torch.zeros_like(right), right.clone()
    direction, steps = residual.clone(), 0
    while steps < settings.cg_steps and residual.norm() > settings.cg_tolerance * right.norm():
        image = apply(direction)
        curvature = direction @ image
        if not curvature > 0:
            break
        before = residual @ residual
        alpha = before / curvature
        solution, residual = solution + alpha * direction, residual - alpha * image
        direction = residual + (residual @ residual) / before * direction
        steps += 1
    return solution, steps
