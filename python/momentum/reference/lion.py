"""Lion (Chen et al., 2023, algorithm 2) and the element-wise Lion-K (Chen et al., 2024, arXiv 2310.05898, table 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.state import State


def lion(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    threshold: float = 0.0,
    huber: bool = False,
) -> tuple[Tensor, State]:
    """Return ``∇K(beta1 m + (1 - beta1) g)`` of the old momentum m, and the new momentum.

    K is the l1 norm, whose gradient is the sign; with a ``threshold`` e the sum of max(abs(x) - e, 0), or with ``huber``
    the Huber function, whose gradient is x / e up to e. The sign of 0 is 0 and that of NaN is NaN (torch.sign has 0,
    which would hide it).
    """
    exp_avg = state["exp_avg"]
    direction = beta1 * exp_avg + (1 - beta1) * grad
    below = direction / threshold if huber and threshold > 0 else 0 * direction
    update = torch.where(direction.abs() > threshold, direction.sign(), below)
    return update, {"exp_avg": beta2 * exp_avg + (1 - beta2) * grad}
