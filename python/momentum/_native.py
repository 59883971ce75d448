"""The shared objects as plain C libraries, for calls that hand over Python's own objects instead of going through torch.

C finds the tensor in a tensor's object by itself, because every way that torch offers costs more than all the rest of a step
over small tensors. Where in the object it is, is found out here, from tensors made for it; where that fails nothing is opened.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from momentum import _loader

_WORD = ctypes.sizeof(ctypes.c_void_p)
_FILES = {("momentum", "cpu"): "_C", ("momentum", "cuda"): "_C_cuda", ("momentum_emulated", "cpu"): "_C_emulated"}


@functools.cache
def library(namespace: str = "momentum", device: str = "cpu") -> ctypes.PyDLL | None:
    """Return the shared object whose kernels take tensors of ``device``, or None where it cannot be called directly."""
    path = _loader.path_of(_FILES.get((namespace, device), ""))
    places = _places()
    if path is None or places is None:
        return None
    opened = ctypes.PyDLL(str(path))
    opened.momentum_direct_open.argtypes = [ctypes.py_object] * 4 + [ctypes.c_ssize_t] * 2
    opened.momentum_direct_rule.argtypes = [ctypes.c_char_p]
    opened.momentum_direct_rule.restype = ctypes.c_void_p
    opened.momentum_direct_step.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    opened.momentum_direct_fetch.argtypes = [ctypes.py_object]
    opened.momentum_direct_fetch.restype = None
    opened.momentum_direct_same_items.argtypes = [ctypes.py_object] * 2
    opened.momentum_direct_same_entries.argtypes = [ctypes.py_object] * 3
    opened.momentum_direct_are_elements.argtypes = [ctypes.py_object, ctypes.c_size_t, ctypes.c_ssize_t]
    return opened if opened.momentum_direct_open(Tensor, torch.nn.Parameter, dict, None, *places) else None


@functools.cache
def _places() -> tuple[int, int] | None:
    """Return where an object keeps its type and where a tensor's object keeps the tensor, if all objects agree in it."""
    flat, square = torch.empty(8, device="cpu"), torch.empty(2, 2, device="cpu")
    samples = (flat, torch.nn.Parameter(square), flat[::2], torch.empty((), dtype=torch.float64, device="cpu"))
    if not all(getattr(tensor, "_cdata", 0) for tensor in samples):
        return None
    tensors = {_place(tensor, Tensor.__basicsize__, tensor._cdata) for tensor in samples}
    others: tuple[object, ...] = ({}, [])
    types = {_place(item, object.__basicsize__, id(type(item))) for item in (*samples, *others)}
    if len(tensors) > 1 or len(types) > 1:
        return None
    of_tensor, of_type = tensors.pop(), types.pop()
    return None if of_tensor is None or of_type is None else (of_type, of_tensor)


def _place(item: object, size: int, value: int) -> int | None:
    """Return at which byte of the memory of ``item`` a word equals ``value``."""
    words = (ctypes.c_size_t * (size // _WORD)).from_address(id(item))
    return _WORD * list(words).index(value) if value in words else None
