"""Costs given by points, so that the cost matrix is never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

METRICS = {"sqeuclidean": 1, "euclidean": 2}


@dataclass(frozen=True)
class Points:
    """The cost between two clouds of points, in place of a matrix.

    Parameters
    ----------
    x, y
        Coordinates [n, d] and [m, d], or [B, n, d] and [B, m, d]; float32 or float64.
    metric
        ``"sqeuclidean"`` (default), ``|x - y|²``, or ``"euclidean"``, ``|x - y|``.

    Examples
    --------
    >>> import torch
    >>> from momentum import ot
    >>> x, y = torch.zeros(4, 2), torch.ones(3, 2)
    >>> round(ot.solve(ot.Points(x, y), reg=0.1).value.item(), 6)
    2.0
    """

    x: Any
    y: Any
    metric: str = "sqeuclidean"

    def block(self, begin: int, end: int) -> Tensor:
        """Return rows ``begin`` to ``end`` of the cost in float64, differentiable in the points."""
        return distances(self.x[..., begin:end, :].double(), self.y.double(), self.metric)


def distances(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Return all costs between two clouds, from differences: the expansion of the square would lose digits."""
    squared = torch.zeros(*x.shape[:-1], y.shape[-2], dtype=x.dtype, device=x.device)
    for t in range(x.shape[-1]):
        squared = squared + (x[..., :, None, t] - y[..., None, :, t]).square()
    if metric == "sqeuclidean":
        return squared
    positive = squared > 0  # the root has no derivative at 0; there 0 is taken
    return torch.where(positive, squared.where(positive, 1.0).sqrt(), 0.0)
