"""Adam (Kingma and Ba, 2015, algorithm 1) and AMSGrad (Reddi, Kale and Kumar, 2018), as torch.optim evaluates them."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.state import State


def adam(
    grad: Tensor, state: State, step: int, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> tuple[Tensor, State]:
    """Return the update ``m̂ / (sqrt(v̂) + eps)`` and the new moments; AMSGrad where the state holds its maximum.

    The maximum is taken of the second moment before its bias correction.
    """
    exp_avg = beta1 * state["exp_avg"] + (1 - beta1) * grad
    exp_avg_sq = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad * grad
    new = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    second = exp_avg_sq
    if "max_exp_avg_sq" in state:
        second = new["max_exp_avg_sq"] = torch.maximum(state["max_exp_avg_sq"], exp_avg_sq)
    denom = (second / (1 - beta2**step)).sqrt() + eps
    return exp_avg / (1 - beta1**step) / denom, new
