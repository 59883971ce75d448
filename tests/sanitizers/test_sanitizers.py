"""The drivers run clean under the sanitizers, and agree with each other there, for a rule of every kind.

The programs are built with the emulator (``CMakeLists.txt``), steps for the rules in ``rules.txt``; ``scenario.cpp`` lists what
each is put through.
"""

from __future__ import annotations

import pytest

import binaries
import momentum
from emulator.programs import run

RULES = (binaries.ROOT / "tests" / "sanitizers" / "rules.txt").read_text().split()
STEPS = {
    "steps": {*RULES, "segment_reduce"},
    "transport": {"batch", "single", "points", "large", "no plan", "large, no plan", "large points"},
    "subset": {"elements", "restart", "columns", "rows", "all", "none"},
}
OPERATIONS = {"extrapolate", "move", "clear", "samgs", "stablemax"}
ISAS = ("baseline", "avx2", "avx512", "avx512vbmi")
BEST = momentum.build_info().cpu_isa or "baseline"

# TSan finds a race in whatever order the threads run; what ASan finds may depend on it.
ORDERS = pytest.mark.parametrize(("sanitizer", "order"), [("thread", "0"), ("address", "1"), ("address", "2:1")])


def check(program: str, driver: str, sanitizer: str, *, order: str = "0", isa: str = "baseline") -> list[str]:
    result = run(program, driver, sanitizer=sanitizer, order=order, isa=isa, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


def check_steps(program: str, driver: str, sanitizer: str, *, order: str = "0", isa: str = "baseline") -> None:
    used, *done = check(program, driver, sanitizer, order=order, isa=isa)
    assert used == isa
    assert {*done} == STEPS[program]


@pytest.mark.parametrize("program", STEPS)
@ORDERS
def test_cuda_driver(program: str, sanitizer: str, order: str) -> None:
    check_steps(program, "cuda", sanitizer, order=order)


@pytest.mark.parametrize("program", STEPS)
def test_races_of_four_threads(program: str) -> None:
    check_steps(program, "cpu", "thread")


# What code reads and writes is a matter of the width of its vectors.
@pytest.mark.parametrize("program", STEPS)
@pytest.mark.parametrize("isa", ISAS)
def test_memory_of_four_threads(program: str, isa: str) -> None:
    if ISAS.index(isa) > ISAS.index(BEST):
        pytest.skip(f"{isa}: this processor has {BEST} at best")
    check_steps(program, "cpu", "address", isa=isa)


@ORDERS
def test_operations_on_cuda(sanitizer: str, order: str) -> None:
    assert {*check("lists", "cuda", sanitizer, order=order)} == OPERATIONS


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_operations_on_four_threads(sanitizer: str) -> None:
    assert {*check("lists", "cpu", sanitizer)} == OPERATIONS
