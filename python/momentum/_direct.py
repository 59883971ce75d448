"""Steps called past the dispatcher, for the sake of their time on the host.

Handing a list to an op costs torch some 0.2 microseconds per tensor, several times what a step over small tensors takes. The
shared objects therefore have a second entry that reads the same arguments from Python's own lists. It does what the op does
and is taken only where nobody can tell the difference: plain tensors, no mode, transform, tracer or profiler that wants to see
ops. Everything else goes to the op, errors too.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.compiler import is_compiling
from torch.utils._device import DeviceContext

from momentum import _native
from momentum._objects import Gradients

# Looked up once: on cold caches every name on the way costs as much as a call.
_dispatch_modes: Any = getattr(torch._C, "_len_torch_dispatch_stack", None)
_function_modes: Any = getattr(torch._C, "_len_torch_function_stack", None)
_function_mode: Any = getattr(torch._C, "_get_function_stack_at", None)
_transform: Any = getattr(torch._C._functorch, "peek_interpreter_stack", None)
_enabled = True


@contextmanager
def disabled() -> Iterator[None]:
    """Leave all steps to the ops inside the ``with`` block (tests compare the two)."""
    global _enabled
    previous, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = previous


def step(
    namespace: str, rule: str, tensors: Sequence[Any], options: dict[str, Any], written: Sequence[list[Tensor]] = ()
) -> bool:
    """Run one step of ``rule``, if that can be done past the dispatcher.

    Parameters
    ----------
    namespace
        That of the op.
    rule
        Name of the op without the trailing underscore.
    tensors
        The op's positional arguments, of which the first is the list of parameters and the second that of their gradients.
    options
        The op's keyword arguments.
    written
        Lists of the tensors whose version counters grow when the step is certain to run, before anything is written.

    Returns
    -------
    bool
        Whether the step was run. If not, nothing was written.
    """
    if not _enabled or not tensors[0] or _is_watched():
        return False
    entry = _entry(namespace, tensors[0][0].device.type, rule)
    return entry is not None and entry(tensors, options, written)


def _is_watched() -> bool:
    """Return whether someone may want to see the op or must take its place."""
    return (
        is_compiling()
        or _dispatch_modes() > 0
        or (_function_modes() > 0 and not _only_devices())
        or _transform() is not None
        or profiler._is_profiler_enabled
    )


def _only_devices() -> bool:
    """Return whether the function modes only say where new tensors go."""
    return all(isinstance(_function_mode(i), DeviceContext) for i in range(_function_modes()))


class _Entry:
    """The direct entry of one op."""

    def __init__(self, library: ctypes.PyDLL, namespace: str, rule: str, pointer: int) -> None:
        self._step = library.momentum_direct_step
        self._rule = ctypes.c_void_p(pointer)
        schema = getattr(getattr(torch.ops, namespace), f"{rule}_").default._schema
        options = [argument for argument in schema.arguments if argument.kwarg_only]
        self._count = len(schema.arguments) - len(options)
        self._names = [argument.name for argument in options]
        self._defaults = {argument.name: argument.default_value for argument in options if argument.has_default_value()}

    def __call__(self, tensors: Sequence[Any], options: dict[str, Any], written: Sequence[list[Tensor]]) -> bool:
        arguments = self._defaults | options
        if len(tensors) != self._count or len(arguments) != len(self._names):
            return False
        try:
            numbers = [arguments[name] for name in self._names]
        except KeyError:
            return False
        params, grads, *others = tensors
        held = grads.address if isinstance(grads, Gradients) else None
        arguments_in_order = (params, None if held else grads, *others, *numbers)
        done: bool = self._step(self._rule, arguments_in_order, held, list(written)) == 0
        return done


@functools.cache
def _entry(namespace: str, device: str, rule: str) -> _Entry | None:
    library = _native.library(namespace, device) if _can_watch() else None
    pointer = library.momentum_direct_op(rule.encode()) if library else None
    return _Entry(library, namespace, rule, pointer) if library and pointer else None


def _can_watch() -> bool:
    """Return whether this torch has what :func:`_is_watched` asks."""
    asked = (_dispatch_modes, _function_modes, _function_mode, _transform)
    return all(function is not None for function in asked) and hasattr(profiler, "_is_profiler_enabled")
