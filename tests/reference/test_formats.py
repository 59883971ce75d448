"""The storage formats against exhaustive bit patterns, NumPy and the definition of unbiased rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momentum.reference.formats import kahan_split, nearest, stochastic, words
from momentum.reference.philox import philox4x32

HALVES = [torch.bfloat16, torch.float16]


def patterns(dtype: torch.dtype) -> torch.Tensor:
    """Return every finite value of a 16-bit type."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).short().view(dtype)
    return values[values.isfinite()]


def test_nearest_matches_numpy():
    values = torch.randn(100_000, dtype=torch.float64) * 10.0 ** torch.randint(-8, 5, (100_000,))
    expected = values.numpy().astype(np.float32).astype(np.float16)
    assert np.array_equal(nearest(values, torch.float16).numpy(), expected)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("draw", [0, 0xFFFF])
def test_stored_values_stay(dtype, draw):
    """A number the type can hold is never moved, whatever the draw."""
    values = patterns(dtype)
    rounded = stochastic(values.float(), dtype, torch.full((values.numel(),), draw))
    assert torch.equal(rounded.view(torch.int16), values.view(torch.int16))


@pytest.mark.parametrize("dtype", HALVES)
def test_stochastic_takes_every_draw_once(dtype):
    """Over all 2^16 draws the mean is the value itself, exactly: the fractions here are multiples of 2^-13."""
    draws = torch.arange(2**16)
    for low, fraction in [(1.0, 0.375), (-3.0, 0.5), (2.0**-10, 0.125), (0.5, 1 - 2.0**-13)]:
        start = torch.tensor(low, dtype=dtype)
        after = (start.view(torch.int16) + 1).view(dtype).double()
        value = (start.double() + fraction * (after - start.double())).float()
        rounded = stochastic(value.expand(2**16), dtype, draws)
        assert rounded.double().mean().item() == value.item()


def test_stochastic_of_subnormals_and_the_top():
    smallest = 2.0**-24
    value = torch.tensor([0.25 * smallest, 65504.0 + 24, float("inf"), float("nan")])
    low = stochastic(value, torch.float16, torch.zeros(4, dtype=torch.int64))
    high = stochastic(value, torch.float16, torch.full((4,), 0xFFFF))
    assert low[:3].tolist() == [0.0, 65504.0, float("inf")]
    assert high[:3].tolist() == [smallest, float("inf"), float("inf")]
    assert low[3].isnan()
    assert high[3].isnan()


def test_words_follow_the_element():
    index = torch.tensor([0, 1, 5, 4 * (2**32 + 9) + 2])
    got = words((7 << 32) + 3, 11, index)
    for i, word in zip(index.tolist(), got.tolist(), strict=True):
        group = i // 4
        counter = tuple(torch.tensor(c) for c in (group % 2**32, group // 2**32, 11, 0))
        assert word == philox4x32(counter, (3, 7))[i % 4].item()


@pytest.mark.parametrize("dtype", HALVES)
def test_kahan_doubles_the_precision(dtype):
    """Two roundings to nearest leave 2^-2p of the value, p the precision in bits."""
    values = torch.randn(100_000, dtype=torch.float64).float().double()
    high, low = kahan_split(values, dtype)
    precision = 8 if dtype == torch.bfloat16 else 11
    assert torch.equal(high, nearest(values, dtype))
    error = (high.double() + low.double() - values).abs()
    assert (error <= 2.0 ** (-2 * precision) * values.abs() + 2.0**-25 * (dtype == torch.float16)).all()
