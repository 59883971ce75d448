"""SCALE: SGD normalised by column or row (Glentis et al., 2025, arXiv 2506.16659, and its code)."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def scale(
    grad: Tensor,
    state: State,
    step: int,
    *,
    momentum: float = 0.9,
    eps: float = 1e-8,
    axis: int = 1,
    l2: bool = False,
    mix: float = 1.0,
) -> tuple[Tensor, State]:
    """Return the gradient, or ``mix m + (1 - mix) g`` where the state holds its average m, over its norm along each line.

    The tensor is seen as a matrix of its first dimension by the rest. ``axis`` 1 takes one norm per row of it, 0
    one per column: the root mean square (the official code) or the l2 norm (the paper). A norm counts as at least
    ``eps``, so a zero line stays zero.
    """
    new: State = {}
    if "exp_avg" in state:
        average = new["exp_avg"] = momentum * state["exp_avg"] + (1 - momentum) * grad
        grad = mix * average + (1 - mix) * grad
    matrix = grad.reshape(grad.shape[0] if grad.dim() else 1, -1) if grad.numel() else grad.reshape(0, 0)
    square = matrix.square()
    sums = square.sum(axis, keepdim=True) if l2 else square.mean(axis, keepdim=True)
    return (matrix / sums.sqrt().clamp(min=eps)).reshape(grad.shape), new
