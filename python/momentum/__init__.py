"""Hand-written CUDA and C++ kernels for momentum-based optimization.

Importing the package registers its ops as ``torch.ops.momentum.*``. The optimizers are in :mod:`momentum.optim`;
quantisation of states in :mod:`momentum.quant`; the same steps on NumPy and CuPy arrays, without torch, in
:mod:`momentum.array`; statistics of gradients in :mod:`momentum.gradients`; losses in :mod:`momentum.functional`;
training without gradients in :mod:`momentum.zeroth_order`; optimal transport in :mod:`momentum.ot`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

from momentum._build_info import BuildInfo, build_info
from momentum._loader import load

if TYPE_CHECKING:
    from momentum import array, functional, gradients, optim, ot, quant, reference, zeroth_order

__all__ = [
    "BuildInfo",
    "__version__",
    "array",
    "build_info",
    "functional",
    "gradients",
    "optim",
    "ot",
    "quant",
    "reference",
    "zeroth_order",
]

load()


def __getattr__(name: str) -> ModuleType:
    """Import a public submodule when it is first asked for."""
    if name in ("array", "functional", "gradients", "optim", "ot", "quant", "reference", "zeroth_order"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
