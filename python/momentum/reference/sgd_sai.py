"""SGD-SaI: SGD with one learning rate per tensor, scaled at initialisation (Xu et al., 2024, arXiv 2412.11768)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.state import State


def signal_to_noise(grad: Tensor, *, eps: float = 1e-8, official: bool = False) -> Tensor:
    """Return ``||g|| / (σ + eps)``, σ the unbiased standard deviation of the tensor's elements.

    It counts as 1 where nothing can be told, of one element and of a zero gradient; the official code has |g| / eps and 0.
    """
    norm = grad.square().sum().sqrt()
    deviation = grad.std() if grad.numel() > 1 else torch.zeros_like(norm)
    ratio = norm / (deviation + eps)
    return ratio if official or (grad.numel() > 1 and bool(norm != 0)) else torch.ones_like(norm)


def sgd_sai(grad: Tensor, state: State, step: int, *, momentum: float = 0.9) -> tuple[Tensor, State]:
    """Return the average of the gradient, which the first step fills, times the tensor's ratio (state ``scalars``)."""
    first = step == 1
    buffer = grad if first else momentum * state["momentum_buffer"] + (1 - momentum) * grad
    return state["scalars"] * buffer, {"momentum_buffer": buffer, "scalars": state["scalars"]}
