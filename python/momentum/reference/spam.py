"""Dense SPAM: spike-aware Adam with momentum reset (Huang et al., 2025, arXiv 2501.06842)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momentum.reference.state import State


def warmup(step: int, reset_interval: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate: a cosine from 0.01 to 1 after every reset, 1 before the first."""
    if not reset_interval or step < reset_interval or step % reset_interval >= warmup_steps:
        return 1.0
    return 1 - 0.99 * (1 + math.cos(math.pi * (step % reset_interval) / (warmup_steps + 1))) / 2


def spam(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
    threshold: float = 5000.0,
    reset_interval: int = 500,
    warmup_steps: int = 150,
    accumulation_steps: int = 20,
    guard_zero_v: bool = True,
) -> tuple[Tensor, State]:
    """Return the warmed-up Adam update of the gradient whose spikes, g² > threshold * v, are cut to that limit.

    Steps 0 modulo ``reset_interval`` zero the moments before use; nothing is bias-corrected again. Spikes are
    cut from ``accumulation_steps`` after the start and after each reset. ``eps`` is added to the root before its
    bias correction. With ``guard_zero_v`` an entry whose second moment is 0 is not cut: it would stay there.
    """
    since = step % reset_interval if reset_interval else step
    exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
    if reset_interval and since == 0:
        exp_avg, exp_avg_sq = torch.zeros_like(exp_avg), torch.zeros_like(exp_avg_sq)
    if threshold > 0 and since >= accumulation_steps:
        limit = threshold * exp_avg_sq
        spike = (grad * grad > limit) & ((exp_avg_sq != 0) | (not guard_zero_v))
        grad = torch.where(spike, grad.sign() * limit.sqrt(), grad)
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    factor = warmup(step, reset_interval, warmup_steps)
    factor *= (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    return factor * exp_avg / (exp_avg_sq.sqrt() + eps), {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
