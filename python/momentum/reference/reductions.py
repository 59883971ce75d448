"""Segmented reductions: one number per tensor, per row or per column of each matrix of a list."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SUM, SUMSQ, DOT, ABSMAX = range(4)
TENSOR, COLUMN, ROW = -1, 0, 1


def segment_reduce(xs: Sequence[Tensor], ys: Sequence[Tensor], *, op: int, axis: int) -> Tensor:
    """Return the reductions of all tensors in float64, one after the other.

    A tensor is seen as a matrix of its first dimension by the rest. ``axis`` -1 reduces it to one number, 0 each of
    its columns, 1 each of its rows. ``ys`` is read for the dot product alone. The sum of nothing is 0, and so is
    the largest magnitude of nothing.
    """
    out = [torch.empty(0, dtype=torch.float64)]
    for i, x in enumerate(xs):
        values = x.double()
        values = {SUM: values, SUMSQ: values * values, ABSMAX: values.abs()}.get(op, values)
        if op == DOT:
            values = values * ys[i].double()
        rows = x.shape[0] if x.dim() else 1
        matrix = values.reshape(rows, math.prod(x.shape[1:]))
        lines = matrix.reshape(1, -1) if axis == TENSOR else matrix.movedim(axis, -1)
        reduced = lines.amax(-1) if op == ABSMAX and lines.shape[-1] else lines.sum(-1)
        out.append(reduced)
    return torch.cat(out)
