"""The CPU's own 2^x within the error that it documents, for every instruction set this machine has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import binaries

PROGRAM = r"""
#include <cmath>
#include <cstdio>
#include <limits>

#define MOMENTUM_ISA tested
#include "cpu/ot/exp2.h"

using namespace momentum::cpu::ot::tested;

double exp2_of(double x) { return exp2(splat(x))[kLanes - 1]; }

int main() {
  double worst = 0;
  for (int64_t k = 0; k < 4000000; ++k) {  // dense near 0, and the whole range, with an irrational stride
    const double x = k % 2 == 0 ? std::fmod(k * 0.6180339887498949, 2.0) - 1 : std::fmod(k * 0.6180339887498949, 2044.0) - 1021;
    const long double exact = exp2l(x);
    const double ulp = std::ldexp(1.0, std::ilogb(double(exact)) - 52);
    const double error = double(fabsl(exp2_of(x) - exact) / ulp);
    worst = error > worst ? error : worst;
  }
  const double inf = std::numeric_limits<double>::infinity();
  const bool edges = exp2_of(0) == 1 && exp2_of(-1022) == 0 && exp2_of(-1e300) == 0 && exp2_of(-inf) == 0 &&
                     exp2_of(std::nan("")) == 0 && exp2_of(1e9) > 1e307 && exp2_of(inf) > 1e307 && exp2_of(10) == 1024;
  std::printf("%d %d %.3f\n", kLanes, int(edges), worst);
}
"""
ISAS = {"baseline": ("", 2), "avx2": ("x86-64-v3", 4), "avx512": ("x86-64-v4", 8)}
FLAGS = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw"}}


@pytest.mark.parametrize("isa", ISAS)
def test_two_units_in_the_last_place(isa, tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine")
    present = set(Path("/proc/cpuinfo").read_text().split())
    if not FLAGS.get(isa, set()) <= present:
        pytest.skip(f"this processor has no {isa}")
    march, lanes = ISAS[isa]
    source = tmp_path / "exp2.cpp"
    source.write_text(PROGRAM)
    flags = ["-std=c++20", "-O2", "-fno-trapping-math", f"-I{binaries.ROOT / 'csrc'}", *([f"-march={march}"] if march else [])]
    subprocess.run([compiler, *flags, str(source), "-o", str(tmp_path / "exp2")], check=True)
    output = subprocess.run([tmp_path / "exp2"], check=True, capture_output=True, text=True).stdout
    width, edges, worst = output.split()
    assert (int(width), int(edges)) == (lanes, 1)
    assert float(worst) <= 2
