"""What ptxas made of the kernels: nothing in local memory, 128-bit accesses, registers under the ceiling."""

from __future__ import annotations

import re

import pytest

import binaries

OBJECTS = sorted((binaries.BUILD / "csrc" / "cuda" / "CMakeFiles").glob("momentum_cuda_*.dir/**/*.cu.o"))

# A block has 256 threads and a multiprocessor 65,536 registers: 128 leave room for two blocks, 80 for three, 64 for four.
# What may have a multiprocessor to itself is `kNeedsRegisters` in csrc/cuda/map.h.
ALONE = r"map_kernel<(\w+, float, MapKind2|(StableSpam|SgdSai|Adabelief), float, MapKind1|Adan, \w+, MapKind\d)>"
CEILINGS = {
    "map_kernel": 128,
    "subset_kernel": 128,
    "convert_kernel": 128,
    "reduce_kernel": 168,  # one block each
    "reduce_columns_kernel": 128,
    "finalize_kernel": 64,
    "products_kernel": 168,  # one block each
    "finish_products_kernel": 64,
    "select_kernel": 128,
    "philox_kernel": 64,
    "upload_kernel": 64,
    "list_kernel": 80,
    "clear_kernel": 64,
    "samgs_kernel": 64,
    "samgs_decide_kernel": 64,
    "stablemax_loss_kernel": 64,
    "stablemax_grad_kernel": 64,
    # Optimal transport: a whole solver in one kernel, of which a multiprocessor holds one block of 256 threads or four of 64;
    # reads of the cost, four of 256 threads.
    "solve_kernel": 255,
    "choose_kernel": 128,
    "evaluate_kernel": 128,
    **dict.fromkeys(
        [
            *("marginals_kernel", "scan_kernel", "scan_finish_kernel", "temperature_kernel", "columns_kernel", "sweep_kernel"),
            *("add_columns_kernel", "measure_kernel", "value_kernel", "bounds_kernel", "count_kernel", "strips_kernel"),
            *("begins_kernel", "fill_kernel", "potentials_kernel", "reach_kernel", "shortage_kernel"),
            *("system_kernel", "residual_kernel", "middle_kernel", "curvature_kernel", "direction_kernel"),
        ],
        64,
    ),
}

pytestmark = [
    pytest.mark.skipif(binaries.CONFIG["cuda_version"] is None, reason="built without CUDA kernels"),
    pytest.mark.xdist_group("sass"),  # each object is disassembled once
]


@pytest.fixture(params=OBJECTS, ids=lambda path: path.name.removesuffix(".cu.o"))
def kernels(request):
    return binaries.kernels(request.param)


def maps(kernels):
    return [kernel for kernel in kernels if kernel.name.startswith("map_kernel<")]


def test_every_architecture_is_compiled():
    archs = {f"sm_{arch}" for arch in binaries.CONFIG["cuda_archs"]}
    assert {kernel.arch for path in OBJECTS for kernel in binaries.kernels(path)} == archs


def test_every_rule_has_kernels():
    rules = {path.stem for path in (binaries.ROOT / "csrc" / "core" / "rules").glob("*.h")}
    mapped = {path.name.removesuffix(".cu.o") for path in OBJECTS if maps(binaries.kernels(path))}
    assert rules <= mapped


def test_nothing_spills(kernels):
    figures = {
        f"{kernel.name} {kernel.arch}": {
            "stack": kernel.stack_bytes,
            "local": kernel.local_bytes,
            "LDL": kernel.count("LDL"),
            "STL": kernel.count("STL"),
        }
        for kernel in kernels
    }
    assert {name: counts for name, counts in figures.items() if any(counts.values())} == {}


def test_registers(kernels):
    for kernel in kernels:
        ceiling = 255 if re.fullmatch(ALONE, kernel.name) else CEILINGS[kernel.name.split("<")[0]]
        assert kernel.registers <= ceiling, f"{kernel.name} {kernel.arch}: {kernel.registers} registers"


def test_maps_use_128_bit_accesses(kernels):
    for kernel in maps(kernels):
        # At least the gradient and the parameter are read, and the parameter written.
        assert kernel.count("LDG.E.128") >= 2, f"{kernel.name} {kernel.arch}"
        assert kernel.count("STG.E.128") >= 1, f"{kernel.name} {kernel.arch}"
