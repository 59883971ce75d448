"""Momentum with adaptive memory (Topollai and Choromanska, 2025, arXiv 2510.04988), its weight from a model of two planes."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference import reductions
from momentum.reference.state import State


def memory_weight(grad: Tensor, memory: Tensor, inverse_scale: Tensor, pull: float) -> Tensor:
    """Return beta: the weight of the memory's plane in the dual of the model's proximal step.

    The model at a step y from p is the larger of <g, y> and <d, y>, two planes of equal height at p, plus the proximal
    terms P y² / 2 lr and pull P (y + lr d / P)² / 2 lr. Its dual is a parabola in beta, clipped to [0, 1]; the product
    of g and d in its vertex is written by the squares of g, d and g - d, none of which cancels.
    """
    squares = [reductions.total(x * x * inverse_scale) for x in (grad, memory, grad - memory)]
    apart = squares[2] != 0
    vertex = (1 + pull) / 2 * (squares[0] - squares[1]) / torch.where(apart, squares[2], 1) + (1 - pull) / 2
    return torch.where(apart, reductions.clip(vertex, 0, 1), 0)


def adaptive_memory(
    grad: Tensor, state: State, step: int, *, pull: float = 0.1, beta2: float = 0.999, eps: float = 1e-8
) -> tuple[Tensor, State]:
    """Return the new memory, which is the gradient at first; over Adam's root where the state holds a second moment."""
    new: State = {}
    inverse_scale = torch.ones_like(grad)
    if "exp_avg_sq" in state:
        second = new["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad * grad
        inverse_scale = 1 / ((second / (1 - beta2**step)).sqrt() + eps)
    memory = grad
    if step > 1:
        beta = memory_weight(grad, state["memory"], inverse_scale, pull)
        memory = ((beta + pull) * state["memory"] + (1 - beta) * grad) / (1 + pull)
    return inverse_scale * memory, {"memory": memory, **new}
