"""Stable-SPAM: adaptive spike clipping and gradient normalisation before Adam (arXiv 2502.17055)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.adam import adam
from momentum.reference.state import State


def normalise(
    grad: Tensor, scalars: Tensor, step: int, *, gamma1: float, gamma2: float, theta: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the clipped gradient scaled to norm ``μ̂ / (sqrt(ν̂) + eps)``, and the new [M, μ, ν].

    M, μ and ν are moving averages of the largest magnitude, of the norm and of its square. Entries above the
    bias-corrected M are rescaled, so that only the largest lands on it.
    """
    peak = grad.abs().max() if grad.numel() else grad.new_zeros(())
    max_avg = theta * scalars[0] + (1 - theta) * peak
    limit = max_avg / (1 - theta**step)
    grad = torch.where(grad.abs() > limit, grad / peak * limit, grad)
    norm = grad.square().sum().sqrt()
    norm_avg = gamma1 * scalars[1] + (1 - gamma1) * norm
    norm_sq_avg = gamma2 * scalars[2] + (1 - gamma2) * norm * norm
    target = norm_avg / (1 - gamma1**step) / ((norm_sq_avg / (1 - gamma2**step)).sqrt() + eps)
    grad = torch.where(norm > 0, grad / norm * target, grad)
    return grad, torch.stack((max_avg, norm_avg, norm_sq_avg))


def stable_spam(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    gamma1: float = 0.7,
    gamma2: float = 0.9,
    theta: float = 0.999,
    scale: float = 1.0,
    adam_step: int | None = None,
) -> tuple[Tensor, State]:
    """Return Adam's update of the normalised gradient; ``scale`` shrinks beta1 and gamma1 (cosine schedule).

    ``adam_step`` counts from the last reset, at which it is 1 and the moments are zeroed; the scalars go on.
    """
    grad, scalars = normalise(grad, state["scalars"], step, gamma1=gamma1 * scale, gamma2=gamma2, theta=theta, eps=eps)
    steps = step if adam_step is None else adam_step
    moments = {name: state[name] * (adam_step != 1) for name in ("exp_avg", "exp_avg_sq")}
    update, new = adam(grad, moments, steps, beta1=beta1 * scale, beta2=beta2, eps=eps)
    return update, {**new, "scalars": scalars}
