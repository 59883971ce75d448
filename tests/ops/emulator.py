"""The emulator's controls: the order in which threads and blocks run, and what was launched."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from backends import BACKENDS
from momentum import _loader

ORDERS = {"forward": 0, "reverse": 1, "permuted": 2}


def library() -> ctypes.CDLL:
    BACKENDS["emulated"].op("adam_")
    loaded = ctypes.CDLL(str(_loader.PACKAGE_DIR / "_C_emulated.so"))
    for counter in ("launches", "blocks", "parameter_bytes", "waits"):
        getattr(loaded, f"momentum_emulator_{counter}").restype = ctypes.c_int64
    return loaded


@contextmanager
def order(name: str, seed: int = 0) -> Iterator[None]:
    """Run threads and blocks in another order."""
    set_order = library().momentum_emulator_set_order
    set_order(ctypes.c_int(ORDERS[name]), ctypes.c_uint64(seed))
    try:
        yield
    finally:
        set_order(ctypes.c_int(0), ctypes.c_uint64(0))


@contextmanager
def multiprocessors(count: int) -> Iterator[None]:
    """Emulate a device of another size (4 multiprocessors by default), so that the grid is another."""
    library().momentum_emulator_set_multiprocessors(count)
    try:
        yield
    finally:
        library().momentum_emulator_set_multiprocessors(4)


@contextmanager
def counted(counter: str) -> Iterator[list[int]]:
    """Append what a counter of the emulator's `control.h` has at the end of the block to the list."""
    found: list[int] = []
    loaded = library()
    loaded.momentum_emulator_reset_counters()
    yield found
    found.append(getattr(loaded, f"momentum_emulator_{counter}")())


def launches() -> AbstractContextManager[list[int]]:
    """Count the kernel launches made in the block."""
    return counted("launches")


def waits() -> AbstractContextManager[list[int]]:
    """Count how often the host waits for the device in the block."""
    return counted("waits")
