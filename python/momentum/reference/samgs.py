"""SAM-GS: gradient surgery over tasks, by the similarity of their gradients in magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SamgsState:
    """The averages [tasks, elements], v, and completed steps."""

    exp_avgs: Tensor
    v: Tensor
    step: int


def samgs(grads: Tensor, state: SamgsState, beta1: float, beta2: float, gamma: float) -> tuple[Tensor, Tensor, SamgsState]:
    """Return the combined gradient, the similarity and the new state, from ``grads`` [tasks, elements]."""
    tasks = grads.shape[0]
    norms = grads.norm(dim=1)
    pairs = [(norms[i], norms[j]) for j in range(tasks) for i in range(j)]
    alike = [2 * a * b / (a * a + b * b) if a + b != 0 else torch.ones_like(a) for a, b in pairs]
    similarity = torch.stack(alike).mean()
    exp_avgs = beta1 * state.exp_avgs + (1 - beta1) * grads
    v = beta2 * state.v + (1 - beta2) * (1 - similarity) ** 2 + 1e-8
    step = state.step + 1
    if similarity < gamma:
        combined = sum((g * norms.mean() / n for g, n in zip(grads, norms, strict=True) if n != 0), torch.zeros_like(grads[0]))
    else:
        size = (exp_avgs / (1 - beta1**step)).abs() / (v / (1 - beta2**step)).sqrt()
        combined = (grads * size).sum(0)
    return tasks * combined, similarity, SamgsState(exp_avgs, v, step)
