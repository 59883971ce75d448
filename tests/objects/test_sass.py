"""What ptxas made of the kernels: nothing in local memory, 128-bit accesses, registers under the ceiling."""

from __future__ import annotations

import pytest

import binaries

OBJECTS = sorted((binaries.BUILD / "csrc" / "cuda" / "CMakeFiles").glob("momentum_cuda_*.dir/**/*.cu.o"))

pytestmark = pytest.mark.skipif(binaries.CONFIG["cuda_version"] is None, reason="built without CUDA kernels")


@pytest.fixture(params=OBJECTS, ids=lambda path: path.name.removesuffix(".cu.o"))
def kernels(request):
    return binaries.kernels(request.param)


def test_kernels_exist():
    archs = {f"sm_{arch}" for arch in binaries.CONFIG["cuda_archs"]}
    assert {kernel.arch for path in OBJECTS for kernel in binaries.kernels(path)} == archs


def test_nothing_spills(kernels):
    local = {
        f"{kernel.name} {kernel.arch}": (kernel.stack_bytes, kernel.local_bytes, kernel.count("LDL"), kernel.count("STL"))
        for kernel in kernels
    }
    assert {name: figures for name, figures in local.items() if any(figures)} == {}
