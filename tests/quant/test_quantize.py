"""Quantising on every backend against the float64 reference: all 16-bit inputs, block sizes, tails, scales, odd blocks."""

from __future__ import annotations

import pytest
import torch

from blocks import DECODE, FORMATS, U, assert_decoded, assert_encoded, label
from momentum.quant import StateFormat
from momentum.reference import quant
from momentum.reference.formats import words
from ops.cases import EDGES
from tolerances import bit_equal


def quantize(backend, values, chosen, *, seed=0, step=0, offset=0):
    """Return codes and scales; ``offset`` bytes or elements off their alignment, between guards that must stay."""
    numel = values.numel()

    def guarded(count, dtype, filler):
        whole = torch.full((count + offset + 64,), filler, dtype=dtype, device=backend.device)
        return whole, whole[offset : offset + count]

    code_memory, codes = guarded(chosen.code_bytes(numel), torch.uint8, 0xA5)
    scale_memory, scales = guarded(chosen.scale_count((numel,)), chosen.scale_dtype, -77.0)
    kind, block, rounding, _ = chosen.op_numbers()
    moved = values.to(backend.device)
    backend.op("quantize_")(moved, codes, scales, map=kind, block=block, rounding=rounding, seed=seed, step=step)
    for memory, used, filler in ((code_memory, codes, 0xA5), (scale_memory, scales, -77.0)):
        assert (memory[:offset] == filler).all()
        assert (memory[offset + used.numel() :] == filler).all()
    return codes.cpu(), scales.cpu()


def check(backend, values, chosen, *, seed=0, step=0, offset=0, what=""):
    codes, scales = quantize(backend, values, chosen, seed=seed, step=step, offset=offset)
    exact = values.double().flatten()
    random = None
    if chosen.rounding == "stochastic":
        random = words(seed % 2**64, step, torch.arange(exact.numel()))
    clean = torch.where(exact.isfinite(), exact, torch.nan)
    what = what or f"{chosen} of {tuple(values.shape)}"
    assert_encoded(codes, scales, clean, torch.zeros_like(exact), chosen, random, what)
    return codes, scales


def dequantize(backend, codes, scales, chosen, numel):
    out = torch.empty(numel, device=backend.device)
    backend.op("dequantize_")(codes.to(backend.device), scales.to(backend.device), out, map=chosen.map, block=chosen.block)
    return out.cpu()


def patterns(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).short().view(dtype)


def unit_blocks(dtype, block):
    """Return all numbers of a 16-bit type in [-1, 1], in blocks whose largest magnitude is 1: scales are exact."""
    values = patterns(dtype)
    values = values[values.abs() <= 1]
    rows = torch.nn.functional.pad(values, (0, -values.numel() % (block - 1))).view(-1, block - 1)
    return torch.cat([torch.ones(rows.shape[0], 1, dtype=dtype), rows], 1).flatten()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_every_16_bit_pattern(backend, chosen, dtype):
    """In the order of the patterns: every scale, subnormal ones too, and blocks of NaN and infinity beside others."""
    check(backend, patterns(dtype), chosen)


# Largest distance to the nearest number of a map, in units of the scale, by the magnitude from which it holds: half of the gap.
HALF_GAPS = {
    "dynamic4": [(0, 0.00275), (0.0055, 0.0135), (0.0325, 0.0225), (0.0775, 0.0675), (0.2125, 0.1125), (0.8875, 0.05625)],
    "dynamic4_minus_one": [(0, 0.01625), (0.0325, 0.0225), (0.0775, 0.0675), (0.2125, 0.1125), (0.8875, 0.05625)],
    "unsigned_dynamic4": [
        (0, 0.001625),
        (0.00325, 0.00225),
        (0.00775, 0.00675),
        (0.02125, 0.01125),
        (0.08875, 0.03375),
        (0.15625, 0.05625),
        (0.94375, 0.028125),
    ],
    "linear4": [(0, 1 / 16), (1 / 32, 1 / 32)],
    "linear8": [(0, 0.5 / 127)],
    # 3 bits after the leading one: 2^-4 of the number, and half of the subnormal step below 2^-6 / 448.
    "float8": [(0, 2.0**-10 / 448)] + [(2.0**k / 448, 2.0 ** (k - 4) / 448) for k in range(-6, 9)],
}
# Of 8-bit dynamic maps the gaps double in number and grow tenfold from decade to decade: 0.9 10^(d-6) / 2^(d + unsigned).
for name, extra in (("dynamic8", 0), ("unsigned_dynamic8", 1)):
    gaps = [0.9 * 10.0 ** (d - 6) / 2 ** (d + extra) for d in range(7)]
    # Between decades a quarter of either gap on each side meets in the middle; the first threshold is half of the first number.
    HALF_GAPS[name] = [(0, (0.1e-6 + gaps[0] / 2) / 2)]
    HALF_GAPS[name] += [(10.0 ** (d - 7), max(gaps[d] / 2, (gaps[d] + (gaps[d + 1] if d < 6 else 0)) / 4)) for d in range(7)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_half_gap_bounds(backend, chosen, dtype):
    """Every 16-bit number in [-1, 1] comes back within half a gap of the table; -1 clips to -0.8875 where it has no code."""
    values = unit_blocks(dtype, chosen.block)
    codes, scales = check(backend, values, chosen)
    assert (scales == 1).all()
    exact = values.double()
    error = (dequantize(backend, codes, scales, chosen, values.numel()).double() - exact).abs()
    bound = torch.zeros_like(exact)
    for low, half in HALF_GAPS[label(chosen)]:
        bound = torch.where(exact.abs() >= low, half, bound)
    if chosen.is_unsigned:
        bound = torch.where(exact < 0, 1 / 16 - exact, bound)  # reads as the smallest number
    elif label(chosen).startswith("dynamic") and label(chosen) != "dynamic4_minus_one":
        top = 0.8875 if chosen.bits == 4 else 1 - 0.45 / 64
        bound = torch.where(exact < -top, -top - exact, bound)
    elif label(chosen) == "dynamic4_minus_one":
        positive = torch.where(
            (exact >= 0) & (exact < 0.0055), 0.00275, torch.where((exact > 0) & (exact < 0.0325), 0.0135, bound)
        )
        bound = torch.where(exact >= 0, positive, bound)
    assert (error <= bound * (1 + 2.0**-20) + 2.0**-22 * exact.abs()).all(), (error - bound).max()


SIZES = [*EDGES, 63, 64, 65, 511, 513, 4095, 65_537]


@pytest.mark.parametrize("block", [64, 128, 256])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_blocks_and_tails(backend, chosen, block):
    chosen = StateFormat(chosen.map, block)
    generator = torch.Generator().manual_seed(block)
    for k, numel in enumerate(SIZES):
        values = torch.randn(numel, generator=generator) * 10.0 ** torch.randint(-6, 3, (numel,), generator=generator)
        values = values.abs() if chosen.is_unsigned else values
        codes, scales = check(backend, values, chosen, offset=k % 4)
        assert_decoded(dequantize(backend, codes, scales, chosen, numel), codes, scales, chosen, f"{chosen} of {numel}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_scale_dtypes(backend, chosen, dtype):
    chosen = StateFormat(chosen.map, 64, dtype)
    generator = torch.Generator().manual_seed(3)
    for size in (1.0, 1e-3, 6e4, 2.0**-14, 2.0**-20):
        values = torch.randn(1000, generator=generator) * size / 4
        check(backend, values.abs() if chosen.is_unsigned else values, chosen)


@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_float16_scales_end_where_documented(backend, chosen):
    """Beyond 65504 (and its rounding) the block is NaN; below half of 2^-24 it is zero; in between numbers are not wrapped."""
    chosen = StateFormat(chosen.map, 64, torch.float16)
    largest = torch.tensor(
        [65519.0, 65520.0, 1e30, 2.0**-24, 1.01 * 2.0**-25, 2.0**-25, 1e-12, 1.49 * 2.0**-24, 2.49 * 2.0**-24]
    )
    values = largest.repeat_interleave(64)
    codes, scales = check(backend, values, chosen)
    got = dequantize(backend, codes, scales, chosen, values.numel()).view(-1, 64)
    assert got[1:3].isnan().all()
    assert got[0].isfinite().all()
    assert (scales[5:7] == 0).all()
    assert (got[5:7] == 0).all()
    clipped = scales[[0, 3, 7, 8]].double().unsqueeze(-1).expand(-1, 64)
    torch.testing.assert_close(got[[0, 3, 7, 8]].double(), clipped, rtol=DECODE * U, atol=0)
    if not chosen.is_unsigned:
        codes, scales = check(backend, -values, chosen)
        read = dequantize(backend, codes, scales, chosen, values.numel()).view(-1, 64)[[0, 3, 7, 8]]
        assert (read < 0).all()


@pytest.mark.parametrize("scale", [3e-39, 7e-44, 2.0**-149, 2.0**-126, 3e38, 3.4028234663852886e38])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_extreme_scales(backend, chosen, scale):
    generator = torch.Generator().manual_seed(4)
    values = (torch.rand(1000, generator=generator, dtype=torch.float64) * 2 - 1) * scale
    values[::64] = scale
    values = values.float().abs() if chosen.is_unsigned else values.float()
    codes, scales = check(backend, values, chosen)
    assert_decoded(dequantize(backend, codes, scales, chosen, 1000), codes, scales, chosen, str(chosen))


@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_zero_blocks(backend, chosen):
    """Read as zeros, whatever their sign, beside others that do not change."""
    values = torch.randn(5 * chosen.block).abs()
    alone = values.clone().view(5, -1)
    values.view(5, -1)[1] = 0.0
    values.view(5, -1)[3] = -0.0
    codes, scales = check(backend, values, chosen)
    got = dequantize(backend, codes, scales, chosen, values.numel()).view(5, -1)
    assert (scales[[1, 3]] == 0).all()
    assert (got[[1, 3]] == 0).all()
    others, _ = quantize(backend, alone.flatten(), chosen)
    assert torch.equal(codes.view(5, -1)[::2], others.view(5, -1)[::2])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_not_a_number_shows_in_its_block_alone(backend, chosen, bad):
    """For every place in a block, at every distance from a border of vectors."""
    block = chosen.block
    values = torch.rand(block * block) + 0.1
    clean, clean_scales = quantize(backend, values, chosen)
    spoiled = values.view(block, block).clone()
    for i in range(1, block, 2):
        spoiled[i, i] = bad
    codes, scales = check(backend, spoiled.flatten(), chosen)
    got = dequantize(backend, codes, scales, chosen, values.numel()).view(block, block)
    assert got[1::2].isnan().all()
    assert scales[1::2].isnan().all()
    assert torch.equal(codes.view(block, -1)[::2], clean.view(block, -1)[::2])
    assert torch.equal(scales[::2], clean_scales[::2])


def test_negative_largest_magnitude(backend):
    """dynamic4 has no -1: a block that needs it is clipped to -0.8875; dynamic4_minus_one keeps it."""
    values = torch.full((128,), 0.25)
    values[77] = -2.0
    for name, expected in (("dynamic4", -1.775), ("dynamic4_minus_one", -2.0), ("linear8", -2.0), ("float8", -2.0)):
        chosen = StateFormat(name, 128)
        codes, scales = check(backend, values, chosen)
        assert scales.item() == 2.0
        got = dequantize(backend, codes, scales, chosen, 128)
        assert got[77].item() == pytest.approx(expected, rel=2.0**-22)


@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_what_was_read_is_written_again(backend, chosen):
    """Quantising twice changes nothing: every number of a table is its own nearest one."""
    numbers, _ = quant.usable(chosen.map)
    values = torch.cat([numbers, numbers.flip(0)]).float()
    values[:: chosen.block] = 1.0
    codes, scales = quantize(backend, values, chosen)
    read = dequantize(backend, codes, scales, chosen, values.numel())
    again, scales_again = quantize(backend, read, chosen)
    assert torch.equal(codes, again)
    assert torch.equal(scales, scales_again)
    torch.testing.assert_close(read, values, rtol=2.0**-22, atol=0)


@pytest.mark.parametrize("offset", range(1, 8))
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_alignment_does_not_matter(backend, chosen, offset):
    values = torch.rand(1001)
    codes, scales = quantize(backend, values, chosen)
    moved = torch.empty(1001 + offset)[offset:].copy_(values)
    other, other_scales = quantize(backend, moved, chosen, offset=offset)
    assert torch.equal(codes, other)
    assert torch.equal(scales, other_scales)
    data = torch.empty(codes.numel() + offset, dtype=torch.uint8)[offset:].copy_(codes)
    read = dequantize(backend, codes, scales, chosen, 1001)
    assert bit_equal(read, dequantize(backend, data, scales, chosen, 1001))
