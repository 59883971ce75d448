"""The shared objects as plain C libraries, for calls that hand over Python's own objects instead of going through torch.

C finds the tensor in a tensor's object by itself, because every way that torch offers costs more than all the rest of a step
over small tensors. Where in the object it is, is found out here, from tensors made for it; where that fails nothing is opened.
Nor where threads run Python without a lock: what C borrows could go away while it is read.
For the same reason C calls two functions of torch's own library, by the names below; where they are missing, Python's are used.
"""

from __future__ import annotations

import ctypes
import functools
import sys

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _loader

_WORD = ctypes.sizeof(ctypes.c_void_p)
_TENSOR_BYTES = 16 * _WORD
"""Not more than a tensor of C++ has in any torch."""
TORCH_FUNCTIONS = (b"_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE", b"_ZNK3c1010TensorImpl4gradEv")
"""``torch::autograd::impl::bump_version(const at::Tensor&)`` and ``c10::TensorImpl::grad() const``."""
_FILES = {("momentum", "cpu"): "_C", ("momentum", "cuda"): "_C_cuda", ("momentum_emulated", "cpu"): "_C_emulated"}


@functools.cache
def library(namespace: str = "momentum", device: str = "cpu") -> ctypes.PyDLL | None:
    """Return the shared object whose kernels take tensors of ``device``, or None where it cannot be called directly."""
    path = _loader.path_of(_FILES.get((namespace, device), ""))
    if path is None or not _is_locked() or _places() is None:
        return None
    opened = ctypes.PyDLL(str(path))
    opened.momentum_direct_open.argtypes = [ctypes.py_object] * 5 + [ctypes.c_ssize_t] * 3 + [ctypes.c_char_p] * 2
    opened.momentum_direct_op.argtypes = [ctypes.c_char_p]
    opened.momentum_direct_op.restype = ctypes.c_void_p
    opened.momentum_direct_step.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p, ctypes.py_object]
    opened.momentum_direct_prepare.argtypes = [ctypes.py_object] * 2
    opened.momentum_direct_prepare.restype = ctypes.c_void_p
    opened.momentum_direct_run.argtypes = [ctypes.c_void_p, *[ctypes.py_object] * 4]
    opened.momentum_direct_forget.argtypes = [ctypes.c_void_p]
    opened.momentum_direct_forget.restype = None
    opened.momentum_direct_hold_gradients.argtypes = [ctypes.py_object]
    opened.momentum_direct_hold_gradients.restype = ctypes.c_void_p
    opened.momentum_direct_drop_gradients.argtypes = [ctypes.c_void_p]
    opened.momentum_direct_drop_gradients.restype = None
    opened.momentum_direct_states.argtypes = [ctypes.py_object] * 3 + [ctypes.c_size_t, ctypes.c_ssize_t]
    opened.momentum_direct_states.restype = ctypes.py_object
    opened.momentum_direct_same_items.argtypes = [ctypes.py_object] * 2
    opened.momentum_direct_same_entries.argtypes = [ctypes.py_object] * 3
    return opened if open_with(opened, TORCH_FUNCTIONS) else None


def open_with(library: ctypes.PyDLL, functions: tuple[bytes, bytes]) -> bool:
    """Tell ``library`` what this torch looks like, with ``functions`` in the place of those above; return whether it can be."""
    places = _places()
    objects = Tensor, torch.nn.Parameter, dict, None, increment_version
    return places is not None and bool(library.momentum_direct_open(*objects, *places, *functions))


def _is_locked() -> bool:
    """Return whether one thread at a time runs Python."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


@functools.cache
def _places() -> tuple[int, int, int] | None:
    """Return where an object keeps its type, a tensor's object the tensor, and a tensor its object, if all agree in it.

    The last is -1 where they do not.
    """
    flat, square = torch.empty(8, device="cpu"), torch.empty(2, 2, device="cpu")
    samples = (flat, torch.nn.Parameter(square), flat[::2], torch.empty((), dtype=torch.float64, device="cpu"))
    if not all(getattr(tensor, "_cdata", 0) for tensor in samples):
        return None
    tensors = {_place(id(tensor), Tensor.__basicsize__, tensor._cdata) for tensor in samples}
    others: tuple[object, ...] = ({}, [])
    types = {_place(id(item), object.__basicsize__, id(type(item))) for item in (*samples, *others)}
    if len(tensors) > 1 or len(types) > 1:
        return None
    of_tensor, of_type = tensors.pop(), types.pop()
    if of_tensor is None or of_type is None:
        return None
    objects = {_place(tensor._cdata, _TENSOR_BYTES, id(tensor)) for tensor in samples}
    of_object = objects.pop()
    return of_type, of_tensor, -1 if objects or of_object is None else of_object


def _place(address: int, size: int, value: int) -> int | None:
    """Return at which byte of the memory at ``address`` a word equals ``value``, but for its low bits, which may be flags."""
    words = (ctypes.c_size_t * (size // _WORD)).from_address(address)
    places = [_WORD * i for i, word in enumerate(words) if word & ~(_WORD - 1) == value]
    return places[0] if places else None
