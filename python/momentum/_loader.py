"""Finds and loads the shared objects that register the ops, and says in one sentence why when it cannot."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path

TORCH_FLOOR = (2, 10)
"""Oldest torch whose stable ABI the objects are compiled against."""

PACKAGE_DIR = Path(__file__).resolve().parent

_status: dict[str, str] = {}
_paths: dict[str, Path] = {}


def status() -> dict[str, str]:
    """Return what became of each shared object in this process."""
    unseen = {name: "not loaded" for name in ("_C", "_C_cuda", "_C_emulated") if name not in _status}
    return _status | unseen | {"_array": "available" if _has_array() else "not built"}


def path_of(name: str) -> Path | None:
    """Return the file of a shared object that this process has loaded."""
    return _paths.get(name)


def load() -> None:
    """Register the ops: the CPU kernels always, the CUDA kernels where they were built and can be loaded.

    Raises
    ------
    ImportError
        When torch is missing or too old, or the CPU kernels are missing or cannot be loaded. Without torch, a build that
        has the array module is still usable and nothing is raised.

    Warns
    -----
    RuntimeWarning
        When the CUDA kernels are missing although torch has CUDA, or cannot be loaded. The CPU kernels stay usable.
    """
    floor = ".".join(map(str, TORCH_FLOOR))
    if importlib.util.find_spec("torch") is None:
        if not _has_array():
            raise ImportError(f"momentum needs torch >= {floor}, and this environment has none: pip install torch")
        _status["_C"] = _status["_C_cuda"] = "not loaded: no torch in this environment"
        return

    import torch

    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found is None or (int(found[1]), int(found[2])) < TORCH_FLOOR:
        raise ImportError(f"momentum needs torch >= {floor}, and this environment has torch {torch.__version__}")

    _register("_C", PACKAGE_DIR / "_C.so")
    if not (PACKAGE_DIR / "_C_cuda.so").exists():
        _status["_C_cuda"] = "not built"
        if torch.version.cuda is not None:
            _warn(f"momentum has no CUDA kernels: {PACKAGE_DIR / '_C_cuda.so'} is missing, so CUDA tensors are refused")
        return
    try:
        _register("_C_cuda", PACKAGE_DIR / "_C_cuda.so")
    except ImportError as error:
        _warn(f"{error}; the CPU kernels are not affected")


def load_emulated(path: Path | None = None) -> None:
    """Register the CUDA kernels compiled for the SIMT emulator as ``torch.ops.momentum_emulated.*``, for tests.

    Parameters
    ----------
    path
        The shared object, by default the one that ``make test`` puts in the package.

    Raises
    ------
    ImportError
        When the object is missing or cannot be loaded.
    """
    if _status.get("_C_emulated") != "loaded":
        _register("_C_emulated", path or PACKAGE_DIR / "_C_emulated.so")


def _register(name: str, path: Path) -> None:
    import torch

    try:
        if not path.exists():
            raise ImportError(
                f"momentum's {name} is missing ({path}): reinstall torch-momentum, or run `make setup` in a checkout"
            )
        try:
            torch.ops.load_library(path)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ImportError(f"momentum's {name} cannot be loaded ({path}): {error}") from error
    except ImportError as error:
        _status[name] = f"failed: {error}"
        raise
    _status[name] = "loaded"
    _paths[name] = path


def _warn(sentence: str) -> None:
    # Attributed to the line that imports momentum: load() is called from the package's own __init__.
    warnings.warn(sentence, RuntimeWarning, stacklevel=4)


def _has_array() -> bool:
    return importlib.util.find_spec("momentum._array") is not None
