"""Lion (Chen et al., 2023, algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.state import State


def lion(grad: Tensor, state: State, step: int, *, beta1: float = 0.9, beta2: float = 0.99) -> tuple[Tensor, State]:
    """Return ``sign(beta1 m + (1 - beta1) g)`` of the old momentum m, and the new momentum.

    The sign of 0 is 0 and that of NaN is NaN (torch.sign has 0, which would hide it).
    """
    exp_avg = state["exp_avg"]
    direction = beta1 * exp_avg + (1 - beta1) * grad
    update = torch.where(direction.isnan(), direction, direction.sign())
    return update, {"exp_avg": beta2 * exp_avg + (1 - beta2) * grad}
