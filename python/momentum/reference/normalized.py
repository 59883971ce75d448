"""Momentum divided by its norm (Cutkosky and Mehta, 2020, arXiv 2002.03305, algorithm 1)."""

from __future__ import annotations

from torch import Tensor

from momentum.reference import reductions
from momentum.reference.state import State


def normalized(
    grad: Tensor, state: State, step: int, *, momentum: float = 0.9, eps: float = 1e-12, mix: float = 1.0
) -> tuple[Tensor, State]:
    """Return the gradient, or ``mix m + (1 - mix) g`` where the state holds its average m, over its l2 norm.

    The norm counts as at least ``eps``, so a zero tensor stays zero.
    """
    new: State = {}
    if "exp_avg" in state:
        average = new["exp_avg"] = momentum * state["exp_avg"] + (1 - momentum) * grad
        grad = mix * average + (1 - mix) * grad
    return grad / reductions.total(grad * grad).sqrt().clamp(min=eps), new
