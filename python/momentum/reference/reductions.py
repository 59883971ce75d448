"""Segmented reductions: one number per tensor, per row or per column of each matrix of a list."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SUM, SUMSQ, DOT, ABSMAX, AGREEMENT = range(5)
TENSOR, COLUMN, ROW = -1, 0, 1


def total(values: Tensor, dim: int | None = None) -> Tensor:
    """Return the sum of all elements, or along ``dim``, which is kept.

    Rules call it where rounding of a total is to be told from that of elements.
    """
    return values.sum() if dim is None else values.sum(dim, keepdim=True)


def clip(value: Tensor, low: float, high: float) -> Tensor:
    """Return a number made of totals, clipped; it moves by no more than its argument, at the bounds as elsewhere."""
    return value.clamp(low, high)


def segment_reduce(xs: Sequence[Tensor], ys: Sequence[Tensor], *, op: int, axis: int) -> Tensor:
    """Return the reductions of all tensors in float64, one after the other.

    A tensor is seen as a matrix of its first dimension by the rest. ``axis`` -1 reduces it to one number, 0 each of
    its columns, 1 each of its rows. ``ys`` is read for the dot product, and for
    the agreement, which counts the elements of equal sign, other than 0. The sum of nothing is 0, and so is
    the largest magnitude of nothing.
    """
    out = [torch.empty(0, dtype=torch.float64)]
    for i, x in enumerate(xs):
        values = x.double()
        values = {SUM: values, SUMSQ: values * values, ABSMAX: values.abs()}.get(op, values)
        if op == DOT:
            values = values * ys[i].double()
        if op == AGREEMENT:
            other = ys[i].double()
            same = (values.sign() * other.sign() > 0).double()
            values = torch.where(values.isnan() | other.isnan(), torch.nan, same)
        rows = x.shape[0] if x.dim() else 1
        matrix = values.reshape(rows, math.prod(x.shape[1:]))
        lines = matrix.reshape(1, -1) if axis == TENSOR else matrix.movedim(axis, -1)
        reduced = lines.amax(-1) if op == ABSMAX and lines.shape[-1] else lines.sum(-1)
        out.append(reduced)
    return torch.cat(out)
