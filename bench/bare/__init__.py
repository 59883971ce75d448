"""AdamW as a bare loop over float32 tensors in C++, compiled for the processor at hand: the floor of a step's time.

It knows all addresses beforehand and checks nothing, so no optimizer that moves the same bytes can be expected to take less.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import torch

from bench.peers import Parameters
from bench.runner.case import UnavailableError

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("param", ctypes.c_void_p),
        ("grad", ctypes.c_void_p),
        ("exp_avg", ctypes.c_void_p),
        ("exp_avg_sq", ctypes.c_void_p),
        ("numel", ctypes.c_int64),
        ("first_unit", ctypes.c_int64),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("tensors", ctypes.POINTER(_Tensor)),
        ("count", ctypes.c_int64),
        ("lr", ctypes.c_float),
        ("beta1", ctypes.c_float),
        ("beta2", ctypes.c_float),
        ("eps", ctypes.c_float),
        ("weight_decay", ctypes.c_float),
        ("number", ctypes.c_int64),
    )


@functools.cache
def library() -> ctypes.CDLL:
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adamw.so"
        command = [*compiler, *_FLAGS, str(Path(__file__).with_name("adamw.cpp")), "-o", str(path)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"cannot be compiled: {error}") from error
        return ctypes.CDLL(str(path))


class AdamW:
    """Steps of AdamW for contiguous float32 parameters on the CPU, with the gradients that they have now."""

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        self._library = library()
        self._parallel_for = ctypes.CDLL(str(Path(torch.__path__[0]) / "lib" / "libtorch_cpu.so")).torch_parallel_for
        rows = [(p.detach(), p.grad, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters if p.grad is not None]
        self._kept = rows
        self._tensors = (_Tensor * len(rows))(
            *(_Tensor(*(tensor.data_ptr() for tensor in row), row[0].numel()) for row in rows)
        )
        self._library.prepare(self._tensors, ctypes.c_int64(len(rows)))
        self._step = _Step(self._tensors, len(rows), lr, *betas, eps, weight_decay, 0)

    def step(self) -> None:
        """Update every parameter."""
        self._step.number += 1
        if self._library.step(self._parallel_for, ctypes.byref(self._step)) != 0:
            raise RuntimeError("the bare loop failed")
