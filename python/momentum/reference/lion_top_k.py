"""Lion-K of the top-k norm, the sum of the k largest magnitudes (Chen et al., 2024, arXiv 2310.05898, table 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.state import State


def lion_top_k(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    density: float = 0.1,
    count: int = 0,
) -> tuple[Tensor, State]:
    """Return the sign of ``c = beta1 m + (1 - beta1) g`` where its magnitude is at least the k-th largest, and the new m.

    k is ``count`` or, where that is 0, the share ``density`` of the elements, rounded down; at least 1, at most all. Magnitudes
    are compared in float32, and ties with the k-th are all chosen. NaN counts as the largest, and stays NaN.
    """
    exp_avg = state["exp_avg"]
    new = {"exp_avg": beta2 * exp_avg + (1 - beta2) * grad}
    direction = beta1 * exp_avg + (1 - beta1) * grad
    if direction.numel() == 0:
        return direction, new
    k = min(max(count or int(density * direction.numel()), 1), direction.numel())
    magnitude = direction.abs().float()
    threshold = magnitude.flatten().sort().values[-k]
    kept = (magnitude >= threshold) | direction.isnan()
    return torch.where(kept, torch.where(direction.isnan(), direction, direction.sign()), 0.0), new
