"""Segmented reductions against float64: per tensor, row and column, over sizes, dtypes, and sums that cancel."""

from __future__ import annotations

import pytest
import torch

from momentum.reference import segment_reduce
from momentum.reference.reductions import ABSMAX, AGREEMENT, COLUMN, DOT, ROW, SUM, SUMSQ, TENSOR
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from tolerances import TOTAL, UNIT, bit_equal

OPS = {"sum": SUM, "sumsq": SUMSQ, "dot": DOT, "absmax": ABSMAX, "agreement": AGREEMENT}
AXES = {"tensor": TENSOR, "column": COLUMN, "row": ROW}
SHAPES = [(1,), (5,), (1023,), (16_384,), (40_001,), (3, 5), (300, 7), (7, 300), (1, 9000), (2500, 1), (130, 257), (4, 3, 9)]
DTYPES = [FP32, BF16, FP16, FP64]


def make(backend, shapes=SHAPES, offset=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [TensorCase(shape, DTYPES[i % 4], offset=offset) for i, shape in enumerate(shapes)]

    def values(case: TensorCase) -> torch.Tensor:
        random = torch.randn(case.shape, generator=generator, dtype=torch.float64)
        return case.place(random, case.param, backend.device)

    return [values(case) for case in cases], [values(case) for case in cases]


def run(backend, xs, ys, op, axis):
    expected = segment_reduce([x.cpu() for x in xs], [y.cpu() for y in ys], op=op, axis=axis)
    out = torch.full(expected.shape, -7.0, dtype=FP64, device=backend.device)
    backend.op("segment_reduce")(xs, ys if op in (DOT, AGREEMENT) else [], out, kind=op, axis=axis)
    return out.cpu(), expected


def allowed(xs, ys, op, axis):
    """Return the bound of each total: roundings times the sum of the magnitudes; maxima and counts are exact."""
    if op in (ABSMAX, AGREEMENT):
        return 0.0
    magnitudes = [x.cpu().double().abs() for x in xs], [y.cpu().double().abs() for y in ys]
    sizes = segment_reduce(*magnitudes, op=op, axis=axis)
    units = [torch.full_like(x.cpu().double(), UNIT[FP64 if x.dtype == FP64 else FP32]) for x in xs]
    return TOTAL * sizes * segment_reduce(units, units, op=ABSMAX, axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("op", OPS)
def test_against_float64(backend, op, axis):
    xs, ys = make(backend)
    got, expected = run(backend, xs, ys, OPS[op], AXES[axis])
    assert ((got - expected).abs() <= allowed(xs, ys, OPS[op], AXES[axis])).all()


@pytest.mark.parametrize("axis", AXES)
def test_same_bits_at_any_alignment_and_in_any_list(backend, axis):
    xs, ys = make(backend)
    moved, _ = make(backend, offset=3)
    for op in (SUM, SUMSQ):
        together, _ = run(backend, xs, ys, op, AXES[axis])
        elsewhere, _ = run(backend, moved, ys, op, AXES[axis])
        alone = [run(backend, [x], [y], op, AXES[axis])[0] for x, y in zip(xs, ys, strict=True)]
        assert bit_equal(together, elsewhere)
        assert bit_equal(together, torch.cat(alone))


def test_sums_that_cancel(backend):
    """A sum that climbs past 2^25 and comes back: float32 would have lost the small rest on the way.

    The terms are integers below 2^11, so what is added in float32, at most the 8192 terms of one block, stays exact; the
    partial totals are added in float64.
    """
    generator = torch.Generator().manual_seed(1)
    half = torch.randint(2**11, (60_000,), generator=generator).float()
    assert half.double().sum() > 2**25
    x = torch.cat([half, torch.tensor([3.0]), -half]).to(backend.device)
    got, _ = run(backend, [x], [x], SUM, TENSOR)
    assert got.item() == 3.0


def test_error_does_not_grow_with_size(backend):
    """A million equal terms: adding in float32 one after the other would lose two digits."""
    x = torch.full((1_000_003,), 0.1, device=backend.device)
    got, expected = run(backend, [x], [x], SUM, TENSOR)
    assert abs(got.item() / expected.item() - 1) <= TOTAL * UNIT[FP32]


@pytest.mark.parametrize("op", OPS)
def test_nan_shows(backend, op):
    xs, ys = make(backend, [(2000,), (50,)])
    xs[0][1234] = float("nan")
    got, _ = run(backend, xs, ys, OPS[op], TENSOR)
    assert got.isnan().tolist() == [True, False]


@pytest.mark.parametrize("op", OPS)
def test_nothing_is_zero(backend, op):
    empty = torch.empty(0, device=backend.device)
    wide = torch.empty(0, 3, device=backend.device)
    assert run(backend, [empty], [empty], OPS[op], TENSOR)[0].tolist() == [0.0]
    assert run(backend, [wide], [wide], OPS[op], COLUMN)[0].tolist() == [0.0] * 3
    assert run(backend, [], [], OPS[op], TENSOR)[0].tolist() == []
