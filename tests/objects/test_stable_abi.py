"""The torch objects use nothing of torch but its stable C shim, and nothing of CUDA but what they carry."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import binaries

OBJECTS = ["_C", "_C_cuda"] if binaries.CONFIG["cuda_version"] else ["_C"]
ALLOWED_LIBRARIES = {"libtorch_cpu.so", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"}


@pytest.fixture(params=OBJECTS)
def path(request):
    return binaries.PACKAGE / f"{request.param}.so"


def test_audit_against_the_floor(path):
    report = binaries.run(Path(sys.executable).with_name("torch-abi-audit"), path)
    assert re.search(r"^ *Torch ABI: +STABLE$", report, re.MULTILINE), report
    assert re.search(r"^ *Min torch: +2\.10\.0$", report, re.MULTILINE), report


def test_no_cpp_symbol_of_torch_is_needed(path):
    names = [symbol.name for symbol in binaries.symbols(path, "--dynamic", "--undefined-only")]
    assert [name for name in names if name.startswith(("at::", "c10::", "torch::"))] == []
    assert [name for name in names if name.startswith("aoti_torch_")]


def test_dependencies(path):
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", binaries.run("readelf", "--dynamic", path)))
    assert "libtorch_cpu.so" in needed
    assert needed - ALLOWED_LIBRARIES - {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"} == set()


def test_no_search_path_is_recorded(path):
    assert not re.search(r"R(UN)?PATH", binaries.run("readelf", "--dynamic", path))


def test_only_the_direct_entry_is_exported(path):
    names = [symbol.name for symbol in binaries.symbols(path, "--dynamic", "--defined-only")]
    ours = sorted(name for name in names if "momentum" in name or "cuda" in name)
    assert ours == [
        "momentum_direct_drop_gradients",
        "momentum_direct_forget",
        "momentum_direct_hold_gradients",
        "momentum_direct_op",
        "momentum_direct_open",
        "momentum_direct_prepare",
        "momentum_direct_run",
        "momentum_direct_same_entries",
        "momentum_direct_same_items",
        "momentum_direct_states",
        "momentum_direct_step",
    ]


def test_no_path_of_the_build_machine_in_messages():
    text = (binaries.PACKAGE / "_C.so").read_bytes()
    assert str(binaries.ROOT).encode() not in text


def test_cuda_object_exists_where_it_was_forced():
    if os.environ.get("MOMENTUM_CUDA") != "ON":
        pytest.skip("MOMENTUM_CUDA is not ON")
    assert (binaries.PACKAGE / "_C_cuda.so").exists()
    archs = os.environ["MOMENTUM_CUDA_ARCHS"].split(";")
    assert binaries.CONFIG["cuda_archs"] == [int(arch) for arch in archs]
