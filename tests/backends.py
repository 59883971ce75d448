"""Where an op can run in the tests.

``cpu`` is the CPU kernels, ``emulated`` the CUDA kernels compiled by the host compiler under the SIMT emulator and
run on CPU tensors, ``cuda`` the CUDA kernels on a GPU. The same tests run on all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import momentum  # noqa: F401 (registers torch.ops.momentum)
from momentum import _loader


@dataclass(frozen=True)
class Backend:
    name: str
    namespace: str
    device: str

    def op(self, name: str) -> Any:
        """Return the op ``name`` of this backend, loading its kernels where that is not done by the import."""
        if self.namespace == "momentum_emulated":
            _loader.load_emulated()
        return getattr(getattr(torch.ops, self.namespace), name).default

    def missing(self) -> str | None:
        """Return why the backend cannot be used here, or None."""
        if self.name == "cuda":
            if not torch.cuda.is_available():
                return "cuda: no GPU on this machine"
            if _loader.status()["_C_cuda"] != "loaded":
                return "cuda: momentum was built without CUDA kernels"
        if self.name == "emulated" and not (_loader.PACKAGE_DIR / "_C_emulated.so").exists():
            return "emulated: momentum was built without the emulator (MOMENTUM_CUDA=OFF)"
        return None


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("cpu", "momentum", "cpu"),
        Backend("emulated", "momentum_emulated", "cpu"),
        Backend("cuda", "momentum", "cuda"),
    )
}
