"""Same inputs, same bits: run to run, whatever else is in the list, at any alignment, with any number of threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from momentum.enums import Cautious
from ops.call import Call, make_call
from ops.cases import TensorCase, dtype_mixes
from rules import RULES
from tolerances import bit_equal

# Small and large: several chunks, tiles and partial totals.
CASES = [*dtype_mixes()[::6], TensorCase((40_001,)), TensorCase((130, 257)), TensorCase((3, 9001))]


def calls(rule: str, device: str, cases: list[TensorCase] = CASES) -> Call:
    chosen = RULES[rule]
    variant = list(chosen.variants.values())[-1]
    options = {"cautious": Cautious.RESCALED, "rounding": 1, "seeds": list(range(len(cases)))}
    return make_call(chosen, variant, cases, device=device, seed=8, **options)


def assert_same(a: Call, b: Call) -> None:
    for name in a.lists:
        for i, (x, y) in enumerate(zip(a.lists[name], b.lists[name], strict=True)):
            assert bit_equal(x, y), f"{name}[{i}] of {a.cases[i]}"


@pytest.mark.parametrize("rule", RULES)
def test_run_to_run(backend, rule):
    first = calls(rule, backend.device)
    second = first.clone()
    first.run(backend)
    second.run(backend)
    assert_same(first, second)


@pytest.mark.parametrize("rule", RULES)
def test_whatever_else_is_in_the_list(backend, rule):
    together = calls(rule, backend.device)
    backwards, alone = together.clone(), together.clone()
    order = list(reversed(range(len(CASES))))
    together.run(backend)
    backwards.select(order).run(backend)
    for i in order:
        alone.select([i]).run(backend)
    assert_same(together, backwards)
    assert_same(together, alone)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_alignment(backend, rule, offset):
    aligned = calls(rule, backend.device, [replace(case, offset=0) for case in CASES])
    moved = calls(rule, backend.device, [replace(case, offset=offset) for case in CASES])
    aligned.run(backend)
    moved.run(backend)
    assert_same(aligned, moved)


@pytest.mark.parametrize("rule", RULES)
def test_threads(rule):
    """The CPU kernels on one thread and on three."""
    from backends import BACKENDS

    one = calls(rule, "cpu")
    three = one.clone()
    one.run(BACKENDS["cpu"])
    torch.set_num_threads(3)
    try:
        three.run(BACKENDS["cpu"])
    finally:
        torch.set_num_threads(1)
    assert_same(one, three)
