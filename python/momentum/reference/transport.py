"""Entropic optimal transport in float64: objective, Newton matrix and sweeps, from the definitions.

Potentials ``x``, ``y`` are in units of ``reg`` and relative to the counting measure: ``P_ij = exp(x_i + y_j - C_ij / reg)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def transport_plan(cost: Tensor, x: Tensor, y: Tensor, reg: float) -> Tensor:
    """Return P."""
    return (x[:, None] + y - cost.double() / reg).exp()


def transport_objective(cost: Tensor, a: Tensor, b: Tensor, x: Tensor, y: Tensor, reg: float) -> Tensor:
    """Return the concave dual objective; its gradient is ``(a - P 1, b - Pᵀ 1)``."""
    return a @ x + b @ y - transport_plan(cost, x, y, reg).sum()


def newton_matrix(plan: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return minus the Hessian, ``[diag(P 1) S; Sᵀ diag(Pᵀ 1)]`` where S has the entries of P that ``kept`` names (all)."""
    sparse = plan if kept is None else plan * kept
    return torch.cat(
        [
            torch.cat([plan.sum(1).diag(), sparse], dim=1),
            torch.cat([sparse.mT, plan.sum(0).diag()], dim=1),
        ]
    )


def sinkhorn(cost: Tensor, a: Tensor, b: Tensor, reg: float, sweeps: int) -> tuple[Tensor, Tensor]:
    """Return the potentials after ``sweeps`` updates of both sides (Cuturi, NeurIPS 2013, in logarithms)."""
    exponent = -cost.double() / reg
    x, y = torch.zeros_like(a), b.log()
    for _ in range(sweeps):
        x = a.log() - (exponent + y).logsumexp(1)
        y = b.log() - (exponent + x[:, None]).logsumexp(0)
    return x, y


def transport_value(cost: Tensor, a: Tensor, b: Tensor, x: Tensor, y: Tensor, reg: float) -> Tensor:
    """Return ``<C, P> + reg KL(P | a bᵀ)`` by definition, entries without mass left out."""
    plan = transport_plan(cost, x, y, reg)
    present = plan > 0
    relative = torch.where(present, plan / (a[:, None] * b), 1.0).log()
    return (torch.where(present, plan * cost.double(), 0.0) + reg * plan * relative).sum()
