"""The emulator computes what the device would, and finds the bugs it is there to find.

Each case is a function in ``kernels/``, named there; the programs are built with the emulator.
"""

from __future__ import annotations

import re
import subprocess

import pytest

import binaries
from emulator.programs import ORDERS, SANITIZERS, run

# Every planted bug: the program that must find it, in which orders (all, or some), and what it must say.
BUGS = {
    "missing barrier": [
        ("plain", any, r"sum\[0\] is -?nan"),
        ("thread", all, r"data race.*bugs\.cu:\d+.*bugs\.cu:\d+"),
    ],
    "unwritten shared memory": [("plain", all, r"sum\[0\] is -?nan")],
    "unwritten dynamic shared memory": [("plain", all, r"value\[0\] is -?nan")],
    "global memory overrun": [("address", all, r"heap-buffer-overflow.*bugs\.cu:\d+")],
    "static shared memory overrun": [("address", all, r"bugs\.cu:\d+.*insufficient space")],
    "dynamic shared memory overrun": [("address", all, r"heap-buffer-overflow.*bugs\.cu:\d+")],
    "misaligned vector": [("address", all, r"bugs\.cu:\d+.*misaligned address")],
    "misaligned asynchronous copy": [("plain", all, r"copy of 16 bytes has a misaligned global address")],
    "divergent barrier": [
        ("plain", all, r"divergent barrier: this thread reached bugs\.cu:(\d+) while 1 others .* wait at bugs\.cu:(?!\1)\d+")
    ],
    "divergent syncwarp": [
        (
            "plain",
            all,
            r"deadlock.*threads 7-63 wait at bugs\.cu:\d+ for the rest of the block"
            r".*threads 0-6 wait at bugs\.cu:\d+ for the lanes of mask 0xffffffff.*block \(0,0,0\)",
        )
    ],
    "mixed collectives": [("plain", all, r"divergent warp: this lane reached .* at bugs\.cu:\d+ .* wait in a")],
    "mask without the caller": [("plain", all, r"mask 0x0000ffff .* does not name the calling lane (16|31)")],
    "shuffle from an unnamed lane": [("plain", all, r"NaN")],
    "missing syncwarp": [("thread", all, r"data race.*bugs\.cu:\d+.*bugs\.cu:\d+")],
    "missing fence": [("thread", all, r"data race.*bugs\.cu:\d+.*bugs\.cu:\d+")],
    "counter without atomic": [("thread", all, r"data race.*bugs\.cu:\d+.*bugs\.cu:\d+")],
    "weak wait": [("plain", all, r"product\[\d+\] is"), ("thread", all, r"data race")],
    "pipeline without barrier": [("plain", any, r"product\[\d+\] is"), ("thread", all, r"data race")],
}

DETECTIONS = [
    pytest.param(bug, *detection, id=f"{bug}-{detection[0]}") for bug, detections in BUGS.items() for detection in detections
]


def case_names() -> list[str]:
    return run("emulator_cases").stdout.splitlines()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_correct_kernels(sanitizer: str, order: str) -> None:
    names = [name for name in case_names() if name not in BUGS]
    assert len(names) >= 25
    result = run("emulator_cases", *names, sanitizer=sanitizer, order=order)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == names  # nothing but what the program says itself: no sanitizer's report


@pytest.mark.parametrize(("bug", "sanitizer", "quantifier", "message"), DETECTIONS)
def test_planted_bug_is_found(bug: str, sanitizer: str, quantifier, message: str) -> None:
    results = [run("emulator_cases", bug, sanitizer=sanitizer, order=order) for order in ORDERS[:3]]
    found = [result.returncode != 0 and re.search(message, result.stderr, re.DOTALL) is not None for result in results]
    assert quantifier(found), "\n".join(result.stderr for result in results)


def test_every_bug_has_a_case() -> None:
    assert set(BUGS) <= set(case_names())


def test_too_much_static_shared_memory() -> None:
    result = run("emulator_oversized", "oversized static shared memory")
    assert result.returncode != 0
    assert re.search(r"65536 bytes of __shared__ variables in .*oversized_kernel.*more than the 48 KB", result.stderr)


@pytest.mark.parametrize("size", [32764, 32768])
def test_size_of_parameters(size: int) -> None:
    cache = binaries.BUILD / "CMakeCache.txt"
    include = re.search(r"^MOMENTUM_CUDA_INCLUDE_DIR:PATH=(.*)$", cache.read_text(), re.MULTILINE)
    if include is None or not (binaries.BUILD / "tests" / "emulator_cases_plain").exists():
        pytest.skip("built without the emulator (MOMENTUM_CUDA=OFF)")
    source = f"""
        #include "cuda/simt.h"
        struct Table {{ int values[{size} / 4]; }};
        __global__ void kernel(const Table __grid_constant__ table) {{}}
        cudaError_t run(const Table& table) {{ return momentum::simt::launch(kernel, 1, 1, 0, nullptr, table); }}
    """
    flags = ["-std=c++20", "-DMOMENTUM_EMULATE", f"-I{binaries.ROOT / 'csrc'}", "-isystem", include[1]]
    command = ["c++", *flags, "-fsyntax-only", "-x", "c++", "-"]
    result = subprocess.run(command, input=source, capture_output=True, text=True)
    assert (result.returncode == 0) == (size <= 32764), result.stderr
    if size > 32764:
        assert "the parameters of a kernel may take 32764 bytes" in result.stderr


def test_unknown_order() -> None:
    result = run("emulator_cases", "clean", order="3")
    assert result.returncode != 0
    assert "MOMENTUM_EMULATOR_ORDER is 0, 1, 2 or 2:seed, not 3" in result.stderr
