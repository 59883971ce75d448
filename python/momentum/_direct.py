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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, compiler
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

DONE, DECLINED, CHANGED = range(3)
"""What becomes of a step in C. Where it was declined the op must take it; where something changed, what was prepared is no
longer what is there. Nothing was written then."""


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
    # Asked first: to a compiler this is a constant, where a flag would be one that changes.
    if is_compiling() or is_watched() or not tensors[0]:
        return False
    entry = _entry(namespace, tensors[0][0].device.type, rule)
    return entry is not None and entry(tensors, options, written)


def is_watched() -> bool:
    """Return whether someone may want to see ops or must take their place; not to be asked in what may be compiled."""
    return (
        not _enabled
        or compiler._is_compiling_flag
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
        self.library = library
        self.rule = ctypes.c_void_p(pointer)
        self._step = library.momentum_direct_step
        schema = getattr(getattr(torch.ops, namespace), f"{rule}_").default._schema
        options = [argument for argument in schema.arguments if argument.kwarg_only]
        self._count = len(schema.arguments) - len(options)
        self._names = [argument.name for argument in options]
        self._defaults = {argument.name: argument.default_value for argument in options if argument.has_default_value()}

    def __call__(self, tensors: Sequence[Any], options: dict[str, Any], written: Sequence[list[Tensor]]) -> bool:
        params, grads, *others = tensors
        held = grads.address if isinstance(grads, Gradients) else None
        arguments = self.in_order((params, None if held else grads, *others), options)
        return arguments is not None and self._step(self.rule, arguments, held, list(written)) == DONE

    def in_order(self, tensors: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return all arguments as the schema has them, or None where they are not those of the op."""
        arguments = self._defaults | options
        if len(tensors) != self._count or len(arguments) != len(self._names):
            return None
        try:
            return *tensors, *[arguments[name] for name in self._names]
        except KeyError:
            return None


@dataclass(frozen=True)
class Call:
    """One op's part of a step that is to be run again and again.

    Attributes
    ----------
    rule
        Name of the op without the trailing underscore.
    params
        The parameters, which are on one device. There is at least one.
    dicts
        The state of each.
    names, defaults, steps
        What is read of them, as in :func:`momentum._objects.states`.
    lists
        For each list of tensors that is found in them, in the op's order, of which names it consists, counted from the second
        one on; nothing for the gradients.
    """

    rule: str
    params: list[Tensor]
    dicts: list[dict[str, Any]]
    names: list[str]
    defaults: list[Tensor | None]
    steps: Tensor
    lists: list[list[int]]


class Prepared:
    """A step for the same parameters and dictionaries of states, to be run again and again.

    Running it compares the optimizer with what it was, looks gradients and states up, and steps: one call of C in the place of
    dozens of Python's, which on cold caches take longer than a step over a hundred thousand elements. Either all calls are run
    or none.

    Parameters
    ----------
    namespace
        That of the ops.
    entries
        The direct entries of the calls' ops.
    calls
        What the step consists of, for devices of one type.
    idle
        Parameters that must have no gradient.

    Attributes
    ----------
    namespace
        As given.
    run
        ``run(address, state, groups, expected, arguments)`` runs the step if an optimizer is as ``expected``, and returns what
        became of it. ``state`` is a dictionary of dictionaries, ``groups`` a list of them. ``expected`` is a tuple of tuples of
        lists: the keys and values of ``state``, or None in their place; then, for each group, its keys and its values and,
        unless they are left out, the list among these that is its parameters, and what must be in that. ``arguments`` has for
        each call what :meth:`arguments` returned.
    address
        The first argument of ``run``; empty where the step cannot be prepared.
    """

    def __init__(self, namespace: str, entries: list[_Entry], calls: Sequence[Call], idle: list[Tensor]) -> None:
        self.address = ctypes.c_void_p()
        self.namespace = namespace
        self._entries = entries
        given = [_as_given(entry, call) for entry, call in zip(entries, calls, strict=True)]
        self._borrowed = given, idle  # by C
        self._library = entries[0].library
        self.run = self._library.momentum_direct_run
        self.address = ctypes.c_void_p(self._library.momentum_direct_prepare(given, idle))

    @classmethod
    def make(cls, namespace: str, calls: Sequence[Call], idle: list[Tensor]) -> Prepared | None:
        """Return a prepared step, or None where it cannot be run past the dispatcher."""
        (device,) = {call.params[0].device.type for call in calls}
        found = [_entry(namespace, device, call.rule) for call in calls]
        entries = [entry for entry in found if entry is not None]
        if len(entries) < len(found):
            return None
        prepared = cls(namespace, entries, calls, idle)
        return prepared if prepared.address else None

    def arguments(self, call: int, tensors: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return the arguments of an op as ``run`` takes them, or None if they are not the op's.

        Parameters
        ----------
        call
            Of which call.
        tensors
            The positional ones, with None in the place of each list that is found.
        options
            The keyword arguments.
        """
        return self._entries[call].in_order(tensors, options)

    def __del__(self) -> None:
        self._library.momentum_direct_forget(self.address)


def _as_given(entry: _Entry, call: Call) -> tuple[Any, ...]:
    """Return a call as C takes it."""
    places = call.steps.data_ptr(), call.steps.element_size()
    return entry.rule.value, call.params, call.dicts, call.names, call.defaults, call.steps, *places, call.lists


@functools.cache
def _entry(namespace: str, device: str, rule: str) -> _Entry | None:
    library = _native.library(namespace, device) if _can_watch() else None
    pointer = library.momentum_direct_op(rule.encode()) if library else None
    return _Entry(library, namespace, rule, pointer) if library and pointer else None


def _can_watch() -> bool:
    """Return whether this torch has what :func:`is_watched` asks."""
    asked = (_dispatch_modes, _function_modes, _function_mode, _transform)
    flags = hasattr(profiler, "_is_profiler_enabled") and hasattr(compiler, "_is_compiling_flag")
    return flags and all(function is not None for function in asked)
