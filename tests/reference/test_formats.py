"""The storage formats against exhaustive bit patterns, NumPy and the definition of unbiased rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momentum.reference.formats import kahan_split, low_bits_join, low_bits_split, nearest, stochastic, words
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


def test_low_bits_are_the_bits_below_a_bfloat16():
    """Every number of 24 bits in [1, 4), of either sign, subnormal ones and the largest: split and joined it is itself."""
    bits = torch.cat([torch.arange(0x3F8000, 0x408000), torch.arange(0, 0x200), torch.arange(0x7F7E00, 0x7F7F80)])
    values = (bits << 8).int().view(torch.float32)
    for exact in (values, -values):
        high, low = low_bits_split(exact)
        assert torch.equal(high.view(torch.int16), exact.to(torch.bfloat16).view(torch.int16)) or (
            # Halfway between two bfloat16: away from zero, where rounding to nearest takes the even one.
            (low[high.view(torch.int16) != exact.to(torch.bfloat16).view(torch.int16)] == -128).all()
        )
        assert torch.equal(low_bits_join(high, low).float(), exact)


def test_low_bits_round_to_nearest_even():
    """The error is at most half of the distance of numbers of 24 bits: 2^-17 of the value."""
    values = torch.randn(100_000) * 10.0 ** torch.randint(-30, 30, (100_000,))
    both = low_bits_join(*low_bits_split(values))
    assert ((both - values.double()).abs() <= 2.0**-16 * values.double().abs()).all()
    half = torch.ldexp(torch.full((100_000,), 0.5, dtype=torch.float64), values.double().abs().frexp().exponent - 16)
    assert ((both - values.double()).abs() <= half).all()
    ties = torch.tensor([1 + 2.0**-16, 1 + 3 * 2.0**-16, -1 - 2.0**-16])
    assert low_bits_join(*low_bits_split(ties)).tolist() == [1.0, 1 + 2.0**-14, -1.0]


def test_low_bits_draw():
    """Over all 2^8 draws the mean is the value itself, exactly."""
    draws = torch.arange(2**8)
    for value in (1 + 3 * 2.0**-22, -5 - 2.0**-14, 2.0**-20 * (1 + 2.0**-23 * 77)):
        both = low_bits_join(*low_bits_split(torch.full((2**8,), value), draws))
        assert both.mean().item() == np.float32(value)


def test_low_bits_of_what_is_not_finite():
    high, low = low_bits_split(torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0]))
    assert high[:2].tolist() == [torch.inf, -torch.inf]
    assert high[2].isnan()
    assert (low == 0).all()
    assert high[3:].view(torch.int16).tolist() == [0, -(2**15)]
