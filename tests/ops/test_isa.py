"""The CPU kernels are compiled for several instruction sets: the lesser ones must be right where the best one is available."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import momentum

TESTS = Path(__file__).parent
ISAS = ("baseline", "avx2", "avx512", "avx512vbmi")
BEST = momentum.build_info().cpu_isa or "baseline"


@pytest.mark.parametrize("isa", ISAS[: ISAS.index(BEST)])
def test_lesser_instruction_sets(isa):
    """The tests of kernels in a process that is told to use ``isa``; the choice is made once per process."""
    environment = os.environ | {"MOMENTUM_CPU_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    used = "import momentum; print(momentum.build_info().cpu_isa)"
    shown = subprocess.run([sys.executable, "-c", used], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == isa
    files = [str(TESTS / name) for name in ("test_parity.py", "test_formats.py", "test_reduce.py", "test_blocks.py")]
    files += [
        str(TESTS / f"test_subset.py::{name}")
        for name in ("test_dtypes_and_sizes", "test_what_the_rest_does", "test_densities")
    ]
    files += [str(TESTS.parent / "quant" / name) for name in ("test_tables.py", "test_quantize.py", "test_matrix_scales.py")]
    files += [
        str(TESTS.parent / "functional" / name)
        for name in ("test_stablemax.py::test_parity", "test_lists.py::test_extrapolation")
    ]
    files += [str(TESTS.parent / "zeroth_order" / f"test_qzo.py::{name}") for name in ("test_update", "test_noise")]
    files += [str(TESTS / "test_philox.py"), str(TESTS.parent / "optim" / "test_samgs.py::test_parity")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "cpu", *files]
    # Not where bits are compared with bits of the same code, or what differs is no vector code; of quantised states one rule is
    # enough, because their conversions know of none.
    same = "test_options or test_whatever_else or test_alignment or test_threads"
    command += ["-k", f"not ({same}) and (adam or not test_blocks)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
