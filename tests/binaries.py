"""Reads what the build made: symbols, dependencies and GPU machine code."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "momentum"
BUILD = Path(os.environ.get("MOMENTUM_BUILD_DIR", ROOT / "build"))
CONFIG = json.loads((PACKAGE / "_build_config.json").read_text())


def run(*command: str | Path) -> str:
    """Return the standard output of a command that must succeed."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Symbol:
    """A line of ``nm``: `kind` is its letter, `name` is demangled."""

    kind: str
    name: str


def symbols(path: Path, *options: str) -> list[Symbol]:
    """Return the symbols of an object; `options` select them as ``nm`` does."""
    lines = run("nm", "--demangle", *options, path).splitlines()
    found = [re.match(r"[0-9a-f ]* ([A-Za-z]) (.*)", line) for line in lines]
    return [Symbol(match[1], match[2]) for match in found if match]


@dataclass
class Kernel:
    """Machine code of one kernel for one architecture; `name` is like ``map_kernel<Adam, float, MapKind0>``."""

    name: str
    arch: str
    registers: int
    stack_bytes: int
    local_bytes: int
    opcodes: Counter[str]

    def count(self, prefix: str) -> int:
        """Return how many instructions start with `prefix`, such as ``LDG.E.128``."""
        return sum(n for opcode, n in self.opcodes.items() if opcode.startswith(prefix))


@cache
def kernels(path: Path) -> list[Kernel]:
    """Disassemble every kernel in an object file that nvcc made."""
    found = {}
    arch = name = ""
    for line in _cuobjdump("-res-usage", path).splitlines():
        if match := re.match(r"arch = (\S+)", line):
            arch = match[1]
        elif match := re.match(r" Function (\S+):", line):
            name = match[1]
        elif match := re.match(r"  REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            found[arch, name] = Kernel(name, arch, *map(int, match.groups()), Counter())
    for line in _cuobjdump("-sass", path).splitlines():
        if match := re.match(r"arch = (\S+)", line):
            arch = match[1]
        elif match := re.match(r"\s+Function : (\S+)", line):
            name = match[1]
        elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line):
            found[arch, name].opcodes[match[1]] += 1
    names = run("c++filt", *(kernel.name for kernel in found.values())).splitlines()
    for kernel, demangled in zip(found.values(), names, strict=True):
        numbered = re.sub(r"\(momentum::(?:\w+::)*(\w+)\)(\d+)", r"\1\2", demangled.replace("(anonymous namespace)::", ""))
        kernel.name = re.sub(r"^void |momentum::(\w+::)*|\(.*$", "", numbered)
    return list(found.values())


def _cuobjdump(option: str, path: Path) -> str:
    spec = importlib.util.find_spec("nvidia")
    assert spec is not None, "the packages of dependency group `test` are not installed"
    tools = [Path(place) / "cu13" / "bin" / "cuobjdump" for place in spec.submodule_search_locations or []]
    return run(next(tool for tool in tools if tool.exists()), option, path)
