"""What an optimizer class tells the shared base about the op it drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reduction:
    """One reduction that runs before the map and must be completed when a tensor is spread over several processes.

    Attributes
    ----------
    combine
        How the partial totals of two processes become one.
    axis
        What gets a total of its own: the tensor (-1), each column (0) or each row (1) of dim 0 by the rest.
    mean
        Whether the op divides the total by the number of elements reduced, so that a shard's own number must be replaced.
    width
        How many totals there are of each.
    shared
        Whether every tensor's total becomes the sum of those of all tensors of the step, whatever calls they go in.
    matrices
        Whether parameters of fewer than two dimensions have none, and those of others are never parts of a whole.
    """

    combine: Literal["sum", "max"]
    axis: Literal[-1, 0, 1] = -1
    mean: bool = False
    width: int = 1
    shared: bool = False
    matrices: bool = False


PROJECTION = (Reduction("sum", axis=1, width=4, matrices=True), Reduction("sum", width=6))
"""Sums over rows, and over the sums of rows, by which AdamP and SGDP decide."""

PERPENDICULAR = Reduction("sum", width=3)
"""What any rule may be preceded by."""


@dataclass(frozen=True)
class Rule:
    """The op behind an optimizer.

    Attributes
    ----------
    op
        Name of the op without its trailing underscore.
    states
        Names of the per-element states in the order of the op's schema, as they appear in ``optimizer.state``.
    scalars
        How many numbers each tensor keeps beside them, in the state ``"scalars"``.
    reductions
        What the rule reduces before its map, in order.
    non_negative
        Which of the states are never negative: they are quantised as magnitudes.
    counts
        Whether the rule reads the number of steps, so that a checkpoint without it cannot be continued.
    """

    op: str
    states: tuple[str, ...]
    scalars: int = 0
    reductions: tuple[Reduction, ...] = ()
    non_negative: tuple[str, ...] = ("exp_avg_sq", "max_exp_avg_sq")
    counts: bool = True
