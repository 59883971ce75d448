"""The drivers run clean under the sanitizers, and agree with each other there, for a rule of every kind.

The programs are built with the emulator (``CMakeLists.txt``), for the rules in ``rules.txt``; ``scenario.cpp`` lists what
each is put through.
"""

from __future__ import annotations

import pytest

import binaries
from emulator.programs import run

RULES = (binaries.ROOT / "tests" / "sanitizers" / "rules.txt").read_text().split()


def check(sanitizer: str, driver: str, order: str) -> None:
    result = run("steps", driver, sanitizer=sanitizer, order=order, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert set(result.stdout.split()) == {*RULES, "segment_reduce"}


# TSan finds a race in whatever order the threads run; what ASan finds may depend on it.
@pytest.mark.parametrize(("sanitizer", "order"), [("thread", "0"), ("address", "1"), ("address", "2:1")])
def test_cuda_driver(sanitizer: str, order: str) -> None:
    check(sanitizer, "cuda", order)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_cpu_driver_on_four_threads(sanitizer: str) -> None:
    check(sanitizer, "cpu", "0")


def check_transport(sanitizer: str, driver: str, order: str) -> None:
    result = run("transport", driver, sanitizer=sanitizer, order=order, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["batch", "single", "points", "large", "no plan", "large, no plan", "large points"]


@pytest.mark.parametrize(("sanitizer", "order"), [("thread", "0"), ("address", "1"), ("address", "2:1")])
def test_transport_on_cuda(sanitizer: str, order: str) -> None:
    check_transport(sanitizer, "cuda", order)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_transport_on_four_threads(sanitizer: str) -> None:
    check_transport(sanitizer, "cpu", "0")


def check_subset(sanitizer: str, driver: str, order: str) -> None:
    result = run("subset", driver, sanitizer=sanitizer, order=order, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.split() == ["elements", "restart", "columns", "rows", "all", "none"]


@pytest.mark.parametrize(("sanitizer", "order"), [("thread", "0"), ("address", "1"), ("address", "2:1")])
def test_subsets_on_cuda(sanitizer: str, order: str) -> None:
    check_subset(sanitizer, "cuda", order)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_subsets_on_four_threads(sanitizer: str) -> None:
    check_subset(sanitizer, "cpu", "0")


def check_lists(sanitizer: str, driver: str, order: str) -> None:
    result = run("lists", driver, sanitizer=sanitizer, order=order, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.split() == ["extrapolate", "move", "clear", "samgs", "stablemax"]


@pytest.mark.parametrize(("sanitizer", "order"), [("thread", "0"), ("address", "1"), ("address", "2:1")])
def test_operations_on_cuda(sanitizer: str, order: str) -> None:
    check_lists(sanitizer, "cuda", order)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_operations_on_four_threads(sanitizer: str) -> None:
    check_lists(sanitizer, "cpu", "0")
