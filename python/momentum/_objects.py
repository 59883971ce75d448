"""Questions about many objects at once, answered in C where possible: a step over small tensors consists of little else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from momentum import _native


def fetch(items: list[Any]) -> None:
    """Bring tensors or dictionaries into the caches, all together rather than one after the other when they are read."""
    library = _native.library()
    if library:
        library.momentum_direct_fetch(items)


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
