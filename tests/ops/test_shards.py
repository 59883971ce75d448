"""Shards of a tensor give together what the whole gives: random bits by global index, reductions completed between."""

from __future__ import annotations

import pytest
import torch

from momentum.enums import Rounding
from ops.call import check, make_call
from ops.cases import BF16, FP32, FP64, TensorCase
from ops.test_determinism import assert_same
from rules import RULES, first
from tolerances import bit_equal

ROWS, COLS = 24, 35


def slices(dim: int) -> list[slice]:
    size = (ROWS, COLS)[dim]
    return [slice(0, 7), slice(7, 16), slice(16, size)]


@pytest.mark.parametrize("dim", [0, 1])
def test_random_bits_follow_the_global_index(backend, dim):
    """Sharded by rows or by columns, a stochastically rounded parameter has the bits of the whole one."""
    rule = RULES["adam"]
    variant = first(rule)
    options = {"rounding": Rounding.STOCHASTIC, "seeds": [123]}
    whole = make_call(rule, variant, [TensorCase((ROWS, COLS), BF16, FP32)], device=backend.device, **options)
    pieces = slices(dim)
    widths = [s.stop - s.start for s in pieces]
    shapes = [(w, COLS) if dim == 0 else (ROWS, w) for w in widths]
    shards = []
    for piece, width in zip(pieces, widths, strict=True):
        # dim 0: a contiguous range from the first row. dim 1: `width` of every `COLS` elements from the first column.
        shards += [piece.start * COLS, COLS, COLS] if dim == 0 else [piece.start, width, COLS]
    parts = make_call(
        rule,
        variant,
        [TensorCase(shape, BF16, FP32) for shape in shapes],
        device=backend.device,
        shards=shards,
        **options,
    )
    for name, tensors in parts.lists.items():
        for tensor, piece in zip(tensors, pieces, strict=True):
            full = whole.lists[name][0]
            tensor.copy_(full[piece] if dim == 0 else full[:, piece])
    parts.steps[:-1] = whole.steps[0]
    whole.run(backend)
    parts.run(backend)
    for name, tensors in parts.lists.items():
        assert bit_equal(torch.cat(tensors, dim), whole.lists[name][0]), name


@pytest.mark.parametrize("offset", [2**31 - 2, 2**32 - 3, 2**34 + 1, 2**40 + 3])
def test_offsets_beyond_32_bits(backend, offset):
    """A shard far inside a huge tensor has the words of its place there."""
    rule = RULES["lion"]
    call = make_call(
        rule,
        first(rule),
        [TensorCase((1030,), BF16), TensorCase((4, 5), BF16)],
        device=backend.device,
        rounding=Rounding.STOCHASTIC,
        shards=[offset, 1030, 1030, offset, 5, 2**33],
    )
    before = call.clone()
    call.run(backend)
    check(before, call)


def run_stages(call, backend, stages):
    before = call.steps.clone()
    for stage in stages:
        assert torch.equal(call.steps, before)
        call.options["stage"] = stage
        call.run(backend)


@pytest.mark.parametrize("rule", ["adam", "stable_spam", "adamp"])
def test_perpendicular_stages_come_first(backend, rule):
    rule = RULES[rule]
    cases = [TensorCase((ROWS, COLS)), TensorCase((5000,)), TensorCase((7, 9), FP64, FP64, (FP64,) * 3)]
    whole = make_call(rule, first(rule), cases, device=backend.device, perpendicular=2)
    staged = whole.clone()
    whole.run(backend)
    last = 2 * rule.reductions
    run_stages(staged, backend, [last + 1, last + 2, *range(last + 1)])
    assert_same(whole, staged)
    assert torch.equal(whole.steps, staged.steps)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES.values() if rule.reductions])
def test_stages_make_the_whole_step(backend, rule):
    """Each reduction, its finalisation, and the map, called one by one, are the step."""
    rule = RULES[rule]
    for variant in rule.variants.values():
        whole = make_call(rule, variant, [TensorCase((ROWS, COLS)), TensorCase((5000,))], device=backend.device)
        staged = whole.clone()
        whole.run(backend)
        run_stages(staged, backend, range(2 * rule.reductions + 1))
        assert_same(whole, staged)
        assert torch.equal(whole.steps, staged.steps)
