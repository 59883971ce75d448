"""Questions about many objects at once, answered in C where possible: a step over small tensors consists of little else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from momentum import _native

if TYPE_CHECKING:
    import ctypes


class Gradients:
    """The gradients of parameters, one of each, kept alive in C.

    A list of them would make Python objects of all: after a backward pass none has one yet. Iterating makes them.
    """

    def __init__(self, library: ctypes.PyDLL, address: int, params: list[Tensor]) -> None:
        self.address = address
        self._library, self._params = library, params

    def __len__(self) -> int:
        return len(self._params)

    def __iter__(self) -> Iterator[Tensor]:
        return (cast("Tensor", param.grad) for param in self._params)

    def __del__(self) -> None:
        self._library.momentum_direct_drop_gradients(self.address)


def gradients(params: list[Tensor], device: str = "cpu") -> list[Tensor] | Gradients | None:
    """Return the gradients of ``params``, which are on ``device``, or None where one has none."""
    library = _native.library("momentum", device)
    address = library.momentum_direct_hold_gradients(params) if library else None
    if library and address:
        return Gradients(library, address, params)
    grads = [grad for param in params if (grad := param.grad) is not None]
    return grads if len(grads) == len(params) else None


def same_items(now: Sequence[Any], then: list[Any]) -> bool:
    """Return whether two sequences hold the same objects."""
    library = _native.library()
    if library and type(now) is list:
        return bool(library.momentum_direct_same_items(now, then))
    return _same(now, then)


def same_entries(now: dict[Any, Any], keys: list[Any], values: list[Any]) -> bool:
    """Return whether the keys and values of a dictionary are the same objects, in the same order, as those of two lists."""
    library = _native.library()
    if library and isinstance(now, dict):
        return bool(library.momentum_direct_same_entries(now, keys, values))
    return _same(now.keys(), keys) and _same(now.values(), values)


def states(
    dicts: list[dict[str, Any]], names: list[str], defaults: list[Tensor | None], steps: Tensor
) -> list[list[Any]] | None:
    """Return, for each of ``names``, what the dictionaries have under it.

    Parameters
    ----------
    dicts
        One for each element of ``steps`` but the last.
    names
        The first, whose values are not returned, is that of the step counts.
    defaults
        For each name what is taken where a dictionary lacks it; None where it may not.
    steps
        A contiguous tensor.

    Returns
    -------
    list of lists, or None
        None where the step counts do not lie where the elements of ``steps`` do, one after the other.

    Raises
    ------
    KeyError
        When a dictionary lacks what it may not.
    AttributeError
        When a step count is no tensor.
    """
    address, size = steps.data_ptr(), steps.element_size()
    library = _native.library()
    found: list[list[Any]] | None = None
    if library:
        found = library.momentum_direct_states(dicts, names, defaults, address, size)
    if found is not None:
        return found
    counts, *others = (
        [items[name] if default is None else items.get(name, default) for items in dicts]
        for name, default in zip(names, defaults, strict=True)
    )
    in_place = all(count.data_ptr() == address + i * size for i, count in enumerate(counts))
    return others if in_place else None


def _same(now: Collection[Any], then: Collection[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))
