"""Updates that leave the norm of their weights alone: AdamP and SGDP (Heo et al., 2021, arXiv 2006.08217, and its code)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference import reductions
from momentum.reference.adam import adam
from momentum.reference.state import State


def is_perpendicular(grad: Tensor, param: Tensor, delta: float, eps: float) -> bool:
    """Return whether every row of ``grad`` is nearly perpendicular to the row of ``param``."""
    sizes = grad.norm(dim=1).clamp(min=eps) * param.norm(dim=1).clamp(min=eps)
    cosines = (grad * param).sum(1).abs() / sizes
    return bool((cosines < delta / param.shape[1] ** 0.5).all())


def project(grad: Tensor, param: Tensor, update: Tensor, *, delta: float, wd_ratio: float, eps: float) -> tuple[Tensor, float]:
    """Return ``update`` without its component along ``param``, where that is what it takes, and the factor of the decay.

    Parameters of two or more dimensions are seen as rows, dim 0 by the rest, and then as one row. The first view in which the
    gradient is nearly perpendicular to the parameter is the one projected in; in none of them nothing happens.
    """
    if param.dim() < 2 or not param.numel():
        return update, 1.0
    for rows in (param.shape[0], 1):
        g, p, u = (x.reshape(rows, -1) for x in (grad, param, update))
        if is_perpendicular(g, p, delta, eps):
            norm = reductions.total(p * p, 1).sqrt() + eps
            return (u - p * (reductions.total(p * u, 1) / (norm * norm))).reshape(update.shape), wd_ratio
    return update, 1.0


def adamp(
    grad: Tensor,
    state: State,
    step: int,
    *,
    param: Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    nesterov: bool = False,
) -> tuple[Tensor, State, float]:
    """Return Adam's update after its projection, the new moments, and what weight decay is multiplied by."""
    update, new = adam(grad, state, step, beta1=beta1, beta2=beta2, eps=eps)
    correction = 1 - beta1**step
    if nesterov:
        ahead = beta1 * new["exp_avg"] + (1 - beta1) * grad
        update = ahead / correction / ((new["exp_avg_sq"] / (1 - beta2**step)).sqrt() + eps)
    projected, decay = project(grad, param, update * correction, delta=delta, wd_ratio=wd_ratio, eps=eps)
    return projected / correction, new, decay


def sgdp(
    grad: Tensor,
    state: State,
    step: int,
    *,
    param: Tensor,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    eps: float = 1e-8,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    project_momentum: bool = False,
) -> tuple[Tensor, State, float]:
    """Return the momentum, or what lies ahead of it, after its projection; and what weight decay is multiplied by.

    With ``project_momentum`` the projected momentum is the one kept, as in the published code, but for Nesterov's.
    """
    stored = state.get("momentum_buffer", torch.zeros_like(grad))
    buffer = momentum * stored + (1 - dampening) * grad
    ahead = grad + momentum * buffer if nesterov else buffer
    update, decay = project(grad, param, ahead, delta=delta, wd_ratio=wd_ratio, eps=eps)
    kept = update if project_momentum and not nesterov else buffer
    return update, {"momentum_buffer": kept} if "momentum_buffer" in state else {}, decay / (1 - momentum)
