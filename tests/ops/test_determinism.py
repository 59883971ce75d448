"""Same inputs, same bits: run to run, whatever else is in the list, at any alignment, with any number of threads."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain

import pytest
import torch

from momentum.enums import Cautious, Perpendicular
from ops.call import Call, make_call
from ops.cases import TensorCase, dtype_mixes
from ops.quantised import formats_of, quantise
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


def groups(processors: int) -> list[TensorCase]:
    """More tensors than the CPU takes at a time: their passes run one after another for every 2^18 elements per processor."""
    large = [TensorCase((511, 513)), TensorCase((1025, 257)), TensorCase((263_000,))]
    small = [TensorCase((3, 5)), TensorCase((70,)), TensorCase((0,)), TensorCase((40, 40))]
    return list(chain.from_iterable((large[i % 3], small[i % 4]) for i in range(2 * processors + 3)))


@pytest.mark.parametrize("kind", ["plain", "quantised"])
@pytest.mark.parametrize("rule", RULES)
def test_groups_of_tensors(rule, kind):
    """All passes of some tensors before those of the next: a tensor gets what it gets alone, and what single passes make."""
    from backends import BACKENDS

    processors = os.cpu_count() or 1
    if processors > 16:
        pytest.skip(f"{processors} processors: a list of several groups would be too large")
    cpu, chosen, cases = BACKENDS["cpu"], RULES[rule], groups(processors)
    options = {"cautious": Cautious.RESCALED, "perpendicular": Perpendicular.RENORMALIZED}
    together = make_call(chosen, list(chosen.variants.values())[-1], cases, seed=9, **options)
    if kind == "quantised":
        # Rows and columns have scales, which take a pass of their own.
        together = quantise(together, formats_of(together, "rank_one"))
    alone, staged = together.clone(), together.clone()
    together.run(cpu)
    for i in range(len(cases)):
        alone.select([i]).run(cpu)
    last = 2 * (chosen.reductions + 1)
    for stage in [last + 1, last + 2, *range(last + 1)]:
        staged.options["stage"] = stage
        staged.run(cpu)
    assert_same(together, alone)
    assert_same(together, staged)
    assert torch.equal(together.steps, staged.steps)
