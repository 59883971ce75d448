"""Segmented reductions: one number per tensor, per row or per column of each matrix of a list."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SUM, SUMSQ, DOT, ABSMAX = range(4)
TENSOR, COLUMN, ROW = -1, 0, 1


def segment_reduce(xs: Sequence[Tensor], ys: Sequence[Tensor], *, op: int, axis: int) -> Tensor:
    """Return the reductions of all tensors in float64, one after the other.

    ``axis`` -1 reduces each tensor to one number, 0 each of its columns, 1 each of its rows. ``ys`` is read for
    the dot product alone. The sum of nothing is 0, and so is the largest magnitude of nothing.
    """
    out = []
    for i, x in enumerate(xs):
        values = x.double()
        values = {SUM: values, SUMSQ: values * values, ABSMAX: values.abs()}.get(op, values)
        if op == DOT:
            values = values * ys[i].double()
        lines = values.reshape(1, -1) if axis == TENSOR else values.movedim(axis, -1)
        if op == ABSMAX and lines.numel():
            out.append(lines.amax(dim=-1).reshape(-1))
        else:
            out.append(lines.sum(dim=-1).reshape(-1))
    return torch.cat(out) if out else torch.empty(0, dtype=torch.float64)
