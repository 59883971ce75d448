"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import nn
from torch.optim.optimizer import ParamsT

from momentum.optim._base import FusedOptimizer
from momentum.optim.frugal import FRUGAL, frugal_groups
from momentum.optim.scale import SCALE, scale_groups

GROUPS: dict[type, Callable[[nn.Module], ParamsT]] = {SCALE: scale_groups, FRUGAL: frugal_groups}
"""Who sorts the parameters of a module."""


def names() -> list[str]:
    """Return the names of all optimizers of this package, in the order of the alphabet.

    Examples
    --------
    >>> import momentum
    >>> "AdamW" in momentum.optim.names()
    True
    """
    return sorted(_classes(), key=str.lower)


def create(name: str, params: ParamsT | nn.Module, **options: Any) -> FusedOptimizer:
    """Construct an optimizer by the name of its class.

    Parameters
    ----------
    name
        Such as ``"AdamW"``; case and the characters ``-``, ``_`` and blank do not matter, so ``"stable-spam"`` is StableSPAM.
    params
        Parameters, named parameters, parameter groups, or a module, whose parameters are meant: sorted by
        :func:`scale_groups` for SCALE, by :func:`frugal_groups` for FRUGAL, all in one group for the others.
    **options
        Arguments of the class.

    Returns
    -------
    FusedOptimizer
        The optimizer.

    Raises
    ------
    ValueError
        When no optimizer has that name; the message suggests the nearest one. And whatever the class refuses.
    TypeError
        When the class has no such option.

    Examples
    --------
    >>> import torch, momentum
    >>> momentum.optim.create("lion", torch.nn.Linear(2, 1), lr=1e-3).defaults["lr"]
    0.001
    """
    classes = _classes()
    folded = {_fold(known): known for known in classes}
    chosen = folded.get(_fold(name))
    if chosen is None:
        near = get_close_matches(_fold(name), folded, n=1, cutoff=0.0)
        raise ValueError(f"there is no optimizer {name!r}: did you mean {folded[near[0]]!r}? There are {', '.join(names())}")
    kind = classes[chosen]
    if isinstance(params, nn.Module):
        params = GROUPS.get(kind, nn.Module.parameters)(params)
    optimizer: FusedOptimizer = kind(params, **options)
    return optimizer


def _classes() -> dict[str, Any]:
    from momentum import optim

    exported = {name: getattr(optim, name) for name in optim.__all__}
    return {
        name: value
        for name, value in exported.items()
        if isinstance(value, type) and issubclass(value, FusedOptimizer) and value is not FusedOptimizer
    }


def _fold(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_ ")
