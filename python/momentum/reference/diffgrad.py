"""diffGrad (Dubey et al., 2020, arXiv 1909.11015), as the authors' second version evaluates it."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def diffgrad(
    grad: Tensor, state: State, step: int, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> tuple[Tensor, State]:
    """Return Adam's update times the friction ``sigmoid(abs(g_prev - g))``; ``eps`` is beside the uncorrected root."""
    exp_avg = beta1 * state["exp_avg"] + (1 - beta1) * grad
    exp_avg_sq = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad * grad
    friction = (state["previous_grad"] - grad).abs().sigmoid()
    factor = (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    new = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "previous_grad": grad}
    return factor * friction * exp_avg / (exp_avg_sq.sqrt() + eps), new
