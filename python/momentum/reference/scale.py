"""SCALE: SGD normalised by column or row (Glentis et al., 2025, arXiv 2506.16659, and its code)."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State

FLOOR = 1e-8


def scale(
    grad: Tensor, state: State, step: int, *, momentum: float = 0.9, axis: int = 1, norm: int = 0
) -> tuple[Tensor, State]:
    """Return the gradient, or its moving average where the state holds one, over its norm along each line.

    ``axis`` 1 takes one norm per row of the matrix, 0 one per column. ``norm`` 0 is the root mean square (the
    official code), 1 the l2 norm (the paper). A norm counts as at least 1e-8, so a zero line stays zero.
    """
    new: State = {}
    if "exp_avg" in state:
        grad = new["exp_avg"] = momentum * state["exp_avg"] + (1 - momentum) * grad
    square = grad.square()
    sums = square.sum(dim=axis, keepdim=True) if norm else square.mean(dim=axis, keepdim=True)
    return grad / sums.sqrt().clamp(min=FLOOR), new
