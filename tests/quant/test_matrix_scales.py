"""Scales of rows and columns, of whole matrices and of tiles: every shape, backend and awkward number."""

from __future__ import annotations

import pytest
import torch

from blocks import assert_decoded, assert_encoded
from momentum.quant import StateFormat, quantize
from momentum.reference.formats import words

FORMATS = [
    StateFormat("linear4", scaling="rank_one"),
    StateFormat("dynamic8", scaling="rank_one", rounding="stochastic"),
    StateFormat("linear4", 64, scaling="grid"),
    StateFormat("dynamic4_minus_one", 128, scaling="grid", rounding="stochastic"),
    StateFormat("float8", 256, scaling="grid"),
]
NAMES = [f"{f.map.name.lower()}-{f.scaling}" for f in FORMATS]
SHAPES = [(2, 2), (3, 5), (64, 64), (65, 129), (1, 300), (300, 1), (300,), (2, 4099), (1025, 3), (7, 5, 33), (200, 257), (0, 4)]


def round_trip(backend, values, chosen, step=3):
    device = backend.device
    codes = torch.full((chosen.code_bytes(values.numel()),), 0xA5, dtype=torch.uint8, device=device)
    scales = torch.full((chosen.scale_count(values.shape),), -7.0, device=device)
    kind, block, rounding, scaling = chosen.op_numbers()
    numbers = {"map": kind, "block": block, "scaling": scaling}
    backend.op("quantize_")(values.to(device), codes, scales, **numbers, rounding=rounding, seed=5, step=step)
    read = torch.empty(values.shape, device=device)
    backend.op("dequantize_")(codes, scales, read, **numbers)
    return codes.cpu(), scales.cpu(), read.cpu()


def check(backend, values, chosen):
    codes, scales, read = round_trip(backend, values, chosen)
    exact = values.double().flatten()
    random = words(5, 3, torch.arange(exact.numel())) if chosen.rounding == "stochastic" else None
    what = f"{chosen} of {tuple(values.shape)}"
    assert_encoded(codes, scales, exact, torch.zeros_like(exact), chosen, random, what, tuple(values.shape))
    assert_decoded(read, codes, scales, chosen, what)
    return scales, read


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chosen", FORMATS, ids=NAMES)
def test_shapes(backend, chosen, shape):
    generator = torch.Generator().manual_seed(7)
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(shape, generator=generator) * 10.0 ** torch.randint(-5, 3, shape, generator=generator)
        check(backend, (values.abs() if chosen.is_unsigned else values).to(dtype), chosen)


@pytest.mark.parametrize("chosen", FORMATS, ids=NAMES)
def test_zero_rows_and_columns(backend, chosen):
    values = torch.rand(130, 70) + 0.1
    values[5] = values[:, 66] = 0.0
    _, read = check(backend, values, chosen)
    assert (read[5] == 0).all()
    assert (read[:, 66] == 0).all()


@pytest.mark.parametrize("chosen", [f for f in FORMATS if f.rounding == "nearest"])
def test_not_a_number_shows_in_its_row_and_column(backend, chosen):
    """Within the tile where there are tiles; nothing else changes but that the scales there are not finite."""
    values = torch.rand(600, 300) + 0.1
    _, _, clean = round_trip(backend, values, chosen)
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoiled = values.clone()
        spoiled[70, 9] = bad
        _, _, read = round_trip(backend, spoiled, chosen)
        expected = torch.zeros_like(values, dtype=torch.bool)
        side = chosen.block if chosen.scaling == "grid" else 600
        expected[70, :side] = True
        first = 70 // side * side
        expected[first : first + side, 9] = True
        assert torch.equal(read.isnan(), expected)
        assert torch.equal(read[~expected], clean[~expected])


def test_rank_one_is_finer_than_blocks():
    """Rows of different size in one block: a scale for each row keeps the small ones."""
    values = torch.rand(64, 64) * 10.0 ** -torch.arange(64).remainder(4).view(-1, 1)
    errors = []
    for scaling in ("block", "rank_one"):
        read = quantize(values, StateFormat("linear4", scaling=scaling)).dequantize()
        errors.append(((read - values) / values.amax(1, keepdim=True)).abs().max().item())
    assert errors[1] <= 1 / 16 < errors[0]
