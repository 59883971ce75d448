"""Steps whose rule serves a subset of the elements, with states for those alone: sparse momentum, coordinate projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from momentum.reference.formats import words
from momentum.reference.frame import apply_step
from momentum.reference.state import Rule, State

BLOCK = 256


def draw_units(units: int, count: int, seed: int, period: int) -> Tensor:
    """Return which of ``units`` are chosen: ``count`` of them, spread evenly over blocks of 256, in each those of least key.

    Block b gets floor((b + 1) 256 count / units) - floor(b 256 count / units), the last one what is left. The key of a unit is
    the upper 23 bits of its random word, then its place in the block.
    """
    index = torch.arange(units)
    keys = (words(seed, period, index) >> 9) * BLOCK + index % BLOCK
    chosen = torch.zeros(units, dtype=torch.bool)
    for first in range(0, units, BLOCK):
        end = min(first + BLOCK, units)
        share = (count if end == units else end * count // units) - first * count // units
        chosen[first + keys[first:end].argsort()[:share]] = True
    return chosen


def spread_units(chosen: Tensor, shape: torch.Size | tuple[int, ...], axis: int) -> Tensor:
    """Return the elements of ``chosen`` units: elements themselves (axis -1), columns (0) or rows (1) of dim 0 by the rest."""
    if axis == -1:
        return chosen.reshape(shape)
    rows = shape[0] if len(shape) else 1
    cols = torch.Size(shape[1:]).numel()
    unit = chosen.reshape(1, cols) if axis == 0 else chosen.reshape(rows, 1)
    return unit.expand(rows, cols).reshape(shape)


def subset_moment(step: int, *, interval: int, phase: int, restart: bool) -> tuple[bool, int, int]:
    """Return whether units are drawn at ``step``, the number of the draw that counts, and the rule's own step."""
    if interval == 0:
        return step == 1, 0, step
    period = (step - phase) // interval
    first = max(period * interval + phase, 1)
    return step == first, period, step - first + 1 if restart else step


def move_state(compact: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return the states of elements ``new`` from those of ``old``: what was not chosen before starts at zero."""
    dense = torch.zeros(old.shape, dtype=compact.dtype)
    dense[old] = compact
    return dense[new]


def subset_step(
    rule: Rule,
    param: Tensor,
    grad: Tensor,
    state: State,
    chosen: Tensor,
    step: int,
    *,
    rest: str = "frozen",
    rest_scale: float = 1.0,
    lr: float,
    **options: Any,
) -> tuple[Tensor, State]:
    """Return the parameter and the compact state: ``rule`` for ``chosen`` elements, the rest by ``rest``.

    ``"frozen"`` leaves the rest as it is, ``"decay"`` applies weight decay, ``"sign"`` and ``"gradient"`` step it by
    ``lr * rest_scale`` times the sign of the gradient or the gradient as well.
    """
    hypers = {k: options.pop(k) for k in tuple(options) if k not in FRAME}
    frame = {"lr": lr, **options}
    stepped, state = apply_step(rule, param[chosen], grad[chosen], state, step, **frame, **hypers)
    result = param.clone()
    if rest != "frozen":
        free = FREE[rest](rest_scale)
        result[~chosen] = apply_step(free, param[~chosen], grad[~chosen], {}, step, **{**frame, "cautious": 0})[0]
    result[chosen] = stepped
    return result, state


FRAME = ("weight_decay", "decay", "max_lr", "maximize", "cautious", "grad_scale")
FREE: dict[str, Callable[[float], Rule]] = {
    "decay": lambda scale: lambda grad, state, step: (0 * grad, state),
    "sign": lambda scale: lambda grad, state, step: (scale * grad.sign(), state),
    "gradient": lambda scale: lambda grad, state, step: (scale * grad, state),
}
