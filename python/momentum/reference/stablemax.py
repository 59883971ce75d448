"""Cross-entropy with StableMax in place of softmax."""

from __future__ import annotations

import torch
from torch import Tensor


def stablemax(x: Tensor) -> Tensor:
    """Return x + 1 where x >= 0 and 1 / (1 - x) below."""
    return torch.where(x >= 0, x + 1, 1 / (1 - x.clamp(max=0)))


def stablemax_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Return one loss per row of ``logits`` [rows, classes], 0 where the label is ``ignore_index``."""
    kept = target != ignore_index
    labels = torch.where(kept, target, 0).long()
    s = stablemax(logits.double())
    losses = -(s.gather(1, labels[:, None])[:, 0] / s.sum(1)).log()
    return torch.where(kept, losses, 0.0)
