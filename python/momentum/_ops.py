"""The step ops as one Python function that autograd can trust.

``torch.ops.momentum.*`` mutate their arguments but, as C++ ops of the stable ABI, do not tell autograd. This layer does:
it refuses to mutate tensors that autograd would have to follow, and bumps the version counters of what was written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _direct

_namespace = "momentum"


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """Call the ops of another namespace inside the ``with`` block (the tests' ``momentum_emulated``)."""
    global _namespace
    previous, _namespace = _namespace, name
    try:
        yield
    finally:
        _namespace = previous


@functools.cache
def _op(namespace_name: str, name: str) -> Callable[..., None]:
    op: Callable[..., None] = getattr(getattr(torch.ops, namespace_name), name).default
    return op


def call(name: str, *arguments: Any, **options: Any) -> None:
    """Call an op that is no step by its name."""
    _op(_namespace, name)(*arguments, **options)


def step_(
    rule: str,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    *,
    scales: Sequence[Tensor] = (),
    residuals: Sequence[Tensor] = (),
    ema_params: Sequence[Tensor] = (),
    scalars: Sequence[Tensor] = (),
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
        As in the op's schema.
    states
        The rule's states in the order of the schema; an optional one may be empty.
    **options
        The op's keyword arguments.

    Raises
    ------
    RuntimeError
        In grad mode, when a tensor that would be written requires grad; and whatever the op refuses. Nothing is written.
    """
    written = [tensors for tensors in (params, *states, scales, residuals, ema_params, scalars, (steps,)) if tensors]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in chain.from_iterable(written)):
        raise RuntimeError(
            f"momentum::{rule}_ writes in place, and a tensor it would write requires grad: call it under torch.no_grad()"
        )
    arguments = (params, grads, *states, scales, residuals, ema_params, scalars, steps, totals)

    def bump() -> None:
        for tensors in written:
            increment_version(tensors)

    if not _direct.step(_namespace, rule, arguments, options, bump):
        _op(_namespace, f"{rule}_")(*arguments, **options)
        bump()


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
    _op(_namespace, name)(*arguments, **options)
    increment_version(written)
