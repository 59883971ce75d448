"""The step ops as one Python function that autograd can trust.

``torch.ops.momentum.*`` mutate their arguments but, as C++ ops of the stable ABI, do not tell autograd. This layer does:
it refuses to mutate tensors that autograd would have to follow, and bumps the version counters of what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _direct
from momentum._objects import Gradients

active_namespace = "momentum"
"""The one whose ops are called."""


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """Call the ops of another namespace inside the ``with`` block (the tests' ``momentum_emulated``)."""
    global active_namespace
    previous, active_namespace = active_namespace, name
    try:
        yield
    finally:
        active_namespace = previous


def _op(namespace_name: str, name: str) -> Callable[..., None]:
    op: Callable[..., None] = getattr(getattr(torch.ops, namespace_name), name).default
    return op


def call(name: str, *arguments: Any, **options: Any) -> None:
    """Call an op that is no step by its name."""
    _op(active_namespace, name)(*arguments, **options)


def step_(
    rule: str,
    params: list[Tensor],
    grads: list[Tensor] | Gradients,
    states: Sequence[list[Tensor]],
    *,
    scales: list[Tensor] | None = None,
    residuals: list[Tensor] | None = None,
    ema_params: list[Tensor] | None = None,
    scalars: list[Tensor] | None = None,
    steps: Tensor,
    totals: Tensor,
    **options: Any,
) -> None:
    """Run one step of ``rule`` on a list of tensors, in place.

    Parameters
    ----------
    rule
        Name of the op without the trailing underscore, such as ``"adam"``.
    params, grads, scales, residuals, ema_params, scalars, steps, totals
        As in the op's schema; lists that are None are empty.
    states
        The rule's states in the order of the schema; an optional one may be empty.
    **options
        The op's keyword arguments.

    Raises
    ------
    RuntimeError
        In grad mode, when a tensor that would be written requires grad; and whatever the op refuses. Nothing is written.
    """
    lists = [params, *states, *(tensors or [] for tensors in (scales, residuals, ema_params, scalars))]
    _step(rule, lists, [steps], (params, grads, *lists[1:], steps, totals), options)


def step_subset_(
    rule: str,
    params: list[Tensor],
    grads: list[Tensor] | Gradients,
    states: Sequence[list[Tensor]],
    *,
    masks: list[Tensor],
    steps: Tensor,
    **options: Any,
) -> None:
    """Run one step of ``rule``, such as ``"adam_subset"``, on a share of the entries; compare :func:`step_`."""
    _step(rule, [params, *states, masks], [steps], (params, grads, *states, masks, steps), options)


def _step(
    rule: str, lists: list[list[Tensor]], steps: list[Tensor], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Call the op of ``rule``, which writes to ``lists`` and ``steps``."""
    written = [tensors for tensors in (*lists, steps) if tensors]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in chain.from_iterable(written)):
        raise RuntimeError(
            f"momentum::{rule}_ writes in place, and a tensor it would write requires grad: call it under torch.no_grad()"
        )
    if _direct.step(active_namespace, rule, arguments, options, written):
        return
    params, grads, *others = arguments
    _op(active_namespace, f"{rule}_")(params, list(grads), *others, **options)
    for tensors in written:
        increment_version(tensors)


def mutate(name: str, written: Sequence[Tensor], *arguments: Any, **options: Any) -> None:
    """Call an op that writes in place, no step, as :func:`step_` calls those that are.

    Raises
    ------
    RuntimeError
        In grad mode, when a tensor that would be written requires grad; and whatever the op refuses. Nothing is written.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in written):
        raise RuntimeError(
            f"momentum::{name} writes in place, and a tensor it would write requires grad: call it under torch.no_grad()"
        )
    _op(active_namespace, name)(*arguments, **options)
    increment_version(written)
