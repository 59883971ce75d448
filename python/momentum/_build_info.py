"""What this installation was built from and what of it is in use."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib import import_module

from momentum import _loader

_CPU_ISAS = ("baseline", "avx2", "avx512", "avx512vbmi")


@dataclass(frozen=True)
class BuildInfo:
    """Facts for bug reports; ``str()`` gives one line per fact.

    Attributes
    ----------
    version
        Of momentum.
    torch_floor
        Oldest torch that works.
    torch
        The torch in use, or None where there is none.
    compiler
        C++ compiler of the shared objects.
    built_with_torch
        The torch whose headers were used.
    cuda_version
        Version of nvcc, or None in a build without CUDA kernels.
    cuda_archs
        Compute capabilities with machine code, times ten; the last one also has PTX.
    cpu_isa
        Instruction set that the CPU kernels use on this machine, or None when they are not loaded.
    loaded
        For each shared object, "loaded" or why not.
    """

    version: str
    torch_floor: str
    torch: str | None
    compiler: str
    built_with_torch: str
    cuda_version: str | None
    cuda_archs: tuple[int, ...]
    cpu_isa: str | None
    loaded: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{field.name:16} {getattr(self, field.name)}" for field in fields(self) if field.name != "loaded"]
        return "\n".join(lines + [f"{name:16} {state}" for name, state in self.loaded.items()])


def build_info() -> BuildInfo:
    """Return what this installation was built from and what of it is in use.

    Examples
    --------
    >>> import momentum
    >>> momentum.build_info().torch_floor
    '2.10'
    """
    config = json.loads((_loader.PACKAGE_DIR / "_build_config.json").read_text())
    loaded = _loader.status()
    torch = import_module("torch") if loaded["_C"] == "loaded" else None
    return BuildInfo(
        version=import_module("momentum").__version__,
        torch_floor=".".join(map(str, _loader.TORCH_FLOOR)),
        torch=torch.__version__ if torch else None,
        compiler=config["compiler"],
        built_with_torch=config["built_with_torch"],
        cuda_version=config["cuda_version"],
        cuda_archs=tuple(config["cuda_archs"]),
        cpu_isa=_CPU_ISAS[torch.ops.momentum.cpu_isa()] if torch else None,
        loaded=loaded,
    )
