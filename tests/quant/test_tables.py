"""What every code stands for, on every backend: exhaustive over codes, against the definition of the tables."""

from __future__ import annotations

import pytest
import torch

from blocks import DECODE, FORMATS, U, assert_decoded, label
from momentum.quant import CodeMap, StateFormat, table
from momentum.reference import quant

# Ordinary, not a power of two, the largest, the smallest normal one, subnormal ones.
SCALES = [1.0, 0.3, 3.4028234663852886e38, 2.0**-64, 2.0**-96, 1.1e-36, 2.0**-126, 3e-39, 7e-44, 2.0**-149, 0.0]


def all_codes(chosen: StateFormat) -> torch.Tensor:
    """Return stored codes: every code at an even and at an odd place, then again in another order."""
    codes = torch.arange(2**chosen.bits)
    codes = torch.cat([codes, codes.roll(1), codes.flip(0)])
    return quant.pack(codes, chosen.map)


def read(backend, chosen, data, scales, numel, dtype=torch.float32):
    out = torch.full((numel,), -7.0, dtype=dtype, device=backend.device)
    backend.op("dequantize_")(data.to(backend.device), scales.to(backend.device), out, map=chosen.map, block=chosen.block)
    return out.cpu()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_every_code(backend, chosen, scale):
    data = all_codes(chosen)
    numel = 3 * 2**chosen.bits
    scales = torch.full((chosen.scale_count((numel,)),), scale)
    assert_decoded(read(backend, chosen, data, scales, numel), data, scales, chosen, label(chosen))


@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_nan_scale_shows_in_its_block_alone(backend, chosen):
    numel = 5 * chosen.block + 3
    data = torch.zeros(chosen.code_bytes(numel), dtype=torch.uint8)
    scales = torch.ones(chosen.scale_count((numel,)))
    scales[1] = scales[5] = torch.nan
    got = read(backend, chosen, data, scales, numel).isnan()
    expected = torch.tensor([False, True, False, False, False, True]).repeat_interleave(chosen.block)[:numel]
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_narrow_results_are_the_rounded_float32_ones(backend, chosen, dtype):
    data, numel = all_codes(chosen), 3 * 2**chosen.bits
    scales = torch.rand(chosen.scale_count((numel,))) + 0.5
    wide = read(backend, chosen, data, scales, numel)
    got = read(backend, chosen, data, scales, numel, dtype)
    torch.testing.assert_close(got, wide.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_scales(backend, dtype):
    chosen = StateFormat("dynamic8", 64, dtype)
    data, numel = all_codes(chosen), 3 * 256
    scales = (torch.rand(chosen.scale_count((numel,))) + 0.5).to(dtype)
    assert_decoded(read(backend, chosen, data, scales, numel), data, scales, chosen, str(dtype))


# The tables of the published code, spelled out.
PUBLISHED = {
    "dynamic4": [
        -0.8875,
        -0.6625,
        -0.4375,
        -0.2125,
        -0.0775,
        -0.0325,
        -0.0055,
        0,
        0.0055,
        0.0325,
        0.0775,
        0.2125,
        0.4375,
        0.6625,
        0.8875,
        1,
    ],
    "dynamic4_minus_one": [
        -1,
        -0.8875,
        -0.6625,
        -0.4375,
        -0.2125,
        -0.0775,
        -0.0325,
        0,
        0.0055,
        0.0325,
        0.0775,
        0.2125,
        0.4375,
        0.6625,
        0.8875,
        1,
    ],
    "unsigned_dynamic4": [
        0,
        0.00325,
        0.00775,
        0.02125,
        0.04375,
        0.06625,
        0.08875,
        0.15625,
        0.26875,
        0.38125,
        0.49375,
        0.60625,
        0.71875,
        0.83125,
        0.94375,
        1,
    ],
    "linear4": [(i + 1) / 16 for i in range(16)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables(name):
    torch.testing.assert_close(table(name), torch.tensor(PUBLISHED[name], dtype=torch.float64), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", ["dynamic8", "unsigned_dynamic8"])
def test_dynamic_tables_of_8_bits(name):
    """256 different numbers, ascending, with 0 and 1; seven decades, each with twice the numbers of the one below."""
    values = table(name)
    assert values.shape == (256,)
    assert (values.diff() > 0).all()
    assert values[-1] == 1
    assert (values == 0).sum() == 1
    signed = name == "dynamic8"
    positive = values[values > 0][:-1]
    for decade in range(7):
        inside = (positive > 10.0 ** (decade - 7)) & (positive < 10.0 ** (decade - 6))
        assert inside.sum() == 2 ** (decade + (not signed))
    assert torch.equal(values[values < 0].flip(0), -positive) if signed else (values >= 0).all()


def test_formats_of_8_bits_without_decades():
    assert torch.equal(table(CodeMap.LINEAR8)[:128], torch.arange(128).double() / 127)
    assert table("linear8")[129] == -1
    assert table("float8")[0x7E] == 1
    assert table("float8")[0xFE] == -1
    assert table("float8")[0x7F].isnan()


def test_bound_is_not_loose():
    """The allowance is some units in the last place: far below half the distance of any two numbers of a table."""
    for chosen in FORMATS:
        numbers, _ = quant.usable(chosen.map)
        gaps = numbers.diff() / torch.maximum(numbers[1:].abs(), numbers[:-1].abs())
        assert gaps.min() / 2 > 1000 * DECODE * U
