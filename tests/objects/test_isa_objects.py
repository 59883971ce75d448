"""Objects compiled for one instruction set cannot leak code into programs that run on another processor."""

from __future__ import annotations

import platform
import re

import pytest

import binaries

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="one instruction set only")

OBJECTS = sorted((binaries.BUILD / "csrc" / "cpu" / "CMakeFiles").glob("momentum_cpu_*.dir/**/*.o"))


def isa_of(path):
    return re.search(r"momentum_cpu_(\w+)\.dir", str(path))[1]


def objects(*isas):
    return [pytest.param(path, id=f"{isa_of(path)}-{path.name}") for path in OBJECTS if isa_of(path) in isas]


def test_every_instruction_set_is_built():
    assert {isa_of(path) for path in OBJECTS} == {"baseline", "avx2", "avx512", "avx512vbmi", "once"}


@pytest.mark.parametrize("path", objects("avx2", "avx512", "avx512vbmi"))
def test_weak_symbols_name_their_instruction_set(path):
    # The linker keeps one of several weak definitions, whichever processor it was compiled for.
    weak = [symbol.name for symbol in binaries.symbols(path, "--defined-only") if symbol.kind in "WVu"]
    assert [name for name in weak if f"::{isa_of(path)}::" not in name] == []


@pytest.mark.parametrize("path", objects("baseline", "once"))
def test_wide_registers_are_not_used_before_dispatch(path):
    assert not re.search(r"%[yz]mm\d", binaries.run("objdump", "--disassemble", path))
