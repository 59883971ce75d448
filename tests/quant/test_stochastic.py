"""Stochastic rounding of codes: the published generator to the bit, and unbiased."""

from __future__ import annotations

import pytest
import torch

from blocks import FORMATS, label
from momentum.quant import StateFormat
from momentum.reference import quant
from quant.test_quantize import check, dequantize, quantize


@pytest.mark.parametrize("block", [64, 128, 256])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_reference_with_the_same_words(backend, chosen, block):
    """Every code is the one that its Philox word chooses; words depend on seed, step and element alone."""
    chosen = StateFormat(chosen.map, block, rounding="stochastic")
    generator = torch.Generator().manual_seed(6)
    for seed, step, numel in ((0, 0, 5003), (1, 7, 1), (2**63 - 1, 2**32 - 1, 130), (-1, 3, 1025)):
        values = torch.randn(numel, generator=generator)
        values = values.abs() if chosen.is_unsigned else values
        check(backend, values, chosen, seed=seed, step=step)


@pytest.mark.parametrize("name", ["dynamic4", "linear8"])
def test_seed_and_step_matter(backend, name):
    chosen = StateFormat(name, rounding="stochastic")
    values = torch.randn(1000)
    base, _ = quantize(backend, values, chosen, seed=1, step=1)
    for seed, step in ((2, 1), (1, 2)):
        other, _ = quantize(backend, values, chosen, seed=seed, step=step)
        assert not torch.equal(base, other)
    again, _ = quantize(backend, values, chosen, seed=1, step=1)
    assert torch.equal(base, again)


@pytest.mark.parametrize("part", [0.5, 0.125, 0.9, 1 / 512])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_unbiased(backend, chosen, part):
    """Between each pair of neighbours: the count of the upper one is within six deviations of binomial.

    A draw has 16 bits, so the probability itself may be off by 2^-16, and by the rounding of the share.
    """
    chosen = StateFormat(chosen.map, rounding="stochastic")
    numbers, _ = quant.usable(chosen.map)
    pairs = numbers.numel() - 1
    chunk = max(1, 2**18 // pairs)
    lower, upper = numbers[:-1].repeat(chunk), numbers[1:].repeat(chunk)
    values = (lower + part * (upper - lower)).float()
    body = chosen.block - 1
    padded = torch.nn.functional.pad(values, (0, -values.numel() % body)).view(-1, body)
    blocks = torch.cat([torch.ones(padded.shape[0], 1), padded], 1)
    codes, scales = quantize(backend, blocks.flatten(), chosen, seed=9)
    got = dequantize(backend, codes, scales, chosen, blocks.numel()).view(-1, chosen.block)[:, 1:].flatten()[: values.numel()]
    went_up = (got.double() - upper).abs() < (got.double() - lower).abs()
    nearer = torch.where(went_up, upper, lower)
    torch.testing.assert_close(got.double(), nearer, rtol=2.0**-21, atol=1e-12)
    count = values.numel()
    off = 2.0**-15 * count
    assert abs(int(went_up.sum()) - part * count) <= 6 * (count * part * (1 - part)) ** 0.5 + off
    mean_error = (got.double() - values.double()).mean().abs()
    deviation = ((upper - lower) ** 2 * part * (1 - part)).mean() ** 0.5 / count**0.5
    assert mean_error <= 6 * deviation + 2.0**-15 * (upper - lower).mean()


@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_numbers_of_the_table_stay(backend, chosen):
    """A power of two as scale makes the share of a table's own float32 number zero, up to rounding: none moves in 50 steps."""
    chosen = StateFormat(chosen.map, rounding="stochastic")
    numbers, usable = quant.usable(chosen.map)
    data = quant.pack(torch.cat([usable[-1:], usable]), chosen.map)
    count = numbers.numel() + 1
    scales = torch.full((chosen.scale_count((count,)),), 2.0)
    values = dequantize(backend, data, scales, chosen, count)
    moved = 0
    for step in range(50):
        codes, _ = quantize(backend, values, chosen, step=step)
        moved += int(
            (
                quant.unpack(codes, chosen.map, count)[: chosen.block] != quant.unpack(data, chosen.map, count)[: chosen.block]
            ).sum()
        )
    # A share of some 2^-21 is away with that probability at most: 50 * 256 draws of 2^-16 steps.
    assert moved <= 1
