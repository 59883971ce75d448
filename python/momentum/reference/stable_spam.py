"""Stable-SPAM: spike clipping and gradient normalisation before Adam (Huang et al., 2025, arXiv 2502.17055)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momentum.reference.adam import adam
from momentum.reference.state import State


def cosine_scale(step: int, total_steps: int, eta_min: float, official: bool) -> float:
    """Return the factor of beta1 and gamma1, from 1 down to ``eta_min``; the official code lets it rise again."""
    if not total_steps:
        return 1.0
    end = total_steps + 1
    position = step if official else min(step, end)
    return eta_min + (1 - eta_min) * (1 + math.cos(math.pi * position / end)) / 2


def counters(step: int, reset_interval: int, official: bool) -> tuple[int, int, bool]:
    """Return the step of the scalar averages, the step of Adam, and whether its moments are reset now.

    A reset step is Adam's step 1 and the next its step 2. The official code has one counter, reset after the averages
    of that step have used it.
    """
    reset = reset_interval > 0 and step % reset_interval == 0
    last = (step - 1) // reset_interval * reset_interval if reset_interval else 0
    since = step - last + 1 if last else step
    return (since if official else step), (1 if reset else since), reset


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
    return torch.where(norm == 0, grad, grad / norm * target), torch.stack((max_avg, norm_avg, norm_sq_avg))


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
    total_steps: int = 0,
    eta_min: float = 0.5,
    reset_interval: int = 1000,
    official: bool = False,
) -> tuple[Tensor, State]:
    """Return Adam's update of the normalised gradient; beta1 and gamma1 shrink along a cosine.

    Steps 0 modulo ``reset_interval`` zero the moments before use. The official code uses the old ones once more,
    as if at step 1, and stores zeros.
    """
    s = cosine_scale(step, total_steps, eta_min, official)
    average_step, adam_step, reset = counters(step, reset_interval, official)
    gammas = {"gamma1": gamma1 * s, "gamma2": gamma2, "theta": theta}
    grad, scalars = normalise(grad, state["scalars"], average_step, eps=eps, **gammas)
    moments = {name: state[name] for name in ("exp_avg", "exp_avg_sq")}
    zeros = {name: torch.zeros_like(moment) for name, moment in moments.items()}
    before = zeros if reset and not official else moments
    update, new = adam(grad, before, adam_step, beta1=beta1 * s, beta2=beta2, eps=eps)
    return update, {**(zeros if reset and official else new), "scalars": scalars}
