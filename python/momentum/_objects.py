"""Questions about many objects at once, answered in C where possible: a step over small tensors consists of little else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from momentum import _native

if TYPE_CHECKING:
    import ctypes


def fetch(items: list[Any]) -> None:
    """Bring tensors or dictionaries into the caches, all together rather than one after the other when they are read."""
    library = _native.library()
    if library:
        library.momentum_direct_fetch(items)


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


def values(dicts: list[dict[str, Any]], key: str) -> list[Any]:
    """Return what each dictionary has under ``key``; raise ``KeyError`` where one has nothing."""
    library = _native.library()
    found: list[Any] | None = library.momentum_direct_values(dicts, key) if library else None
    return [items[key] for items in dicts] if found is None else found


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


def are_elements(tensors: list[Tensor], of: Tensor) -> bool:
    """Return whether the tensors lie where the first elements of the contiguous tensor ``of`` do, one after the other."""
    address, size = of.data_ptr(), of.element_size()
    library = _native.library()
    answer = library.momentum_direct_are_elements(tensors, address, size) if library else -1
    if answer >= 0:
        return bool(answer)
    return [tensor.data_ptr() for tensor in tensors] == [address + i * size for i in range(len(tensors))]


def _same(now: Collection[Any], then: Collection[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))
