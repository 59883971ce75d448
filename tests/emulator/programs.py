"""Running the programs that the build makes of kernels and the SIMT emulator (``build/tests``)."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

import binaries

DIRECTORY = binaries.BUILD / "tests"

# Schedules of threads and blocks: forward, reverse, and two permutations.
ORDERS = ("0", "1", "2:1", "2:2")

# A program is built once for each: as it is, under TSan, under ASan and UBSan.
SANITIZERS = ("plain", "thread", "address")

OPTIONS = {
    "TSAN_OPTIONS": "halt_on_error=1 exitcode=66",
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "halt_on_error=1 print_stacktrace=1",
}


def run(
    program: str, *arguments: str, sanitizer: str = "plain", order: str = "0", isa: str = "baseline", timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a program of ``build/tests`` in a schedule order; its output and the sanitizers' come back in ``stderr``.

    ``isa`` is the instruction set of its CPU kernels, where it has several and the processor has that one.
    """
    path = DIRECTORY / f"{program}_{sanitizer}"
    if not path.exists():
        pytest.skip(f"{path.name}: built without the emulator (MOMENTUM_CUDA=OFF)")
    # TSan wants its shadow memory where address space randomisation may have put a library.
    fixed_addresses = ["setarch", "-R"] if sanitizer == "thread" and shutil.which("setarch") else []
    return subprocess.run(
        [*fixed_addresses, str(path), *arguments],
        env={**os.environ, **OPTIONS, "MOMENTUM_EMULATOR_ORDER": order, "MOMENTUM_CPU_ISA": isa},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
