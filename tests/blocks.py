"""Quantised states in the tests: how far codes, scales and decoded numbers of a kernel may be from the reference, derived."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momentum.quant import StateFormat
from momentum.reference import quant
from tolerances import UNIT, assert_stored

U = UNIT[torch.float32]

# A code's number: the unit of a decade, its product with 5^e, with the integer of the magnitude; then with the scale. Of the
# other maps: the constant (1/127 or 1/448) and its product; then with the scale.
DECODE = 4

# A number on its way to a code: the reciprocal of the scale and the product with it (2). Then it is compared with a threshold:
# two numbers of 3 roundings each, their sum and half of it (4), and perhaps 2^-7 added to both, which makes at most four times
# the least threshold of dynamic4 (8); or it is placed on the line of its decade: the factor on the GPU three reciprocals of
# powers of five and two products, unit, 18, reciprocal and product (9), its product with x (1), the offset of the line (1, of a
# number that is at most 8 x in the same units: 16/18 2^e parts for x >= 2^e / 9), the sum (1, of at most 9 x). With 127 or 448
# in place of the line: the product (1) and adding a half (1, of at most 1.5 x where that decides).
ENCODE = 2 + 9 + 1 + 8 + 9

# A share of the way between two numbers: numbers of 3 roundings on either side, the differences, quotient, and its sum with the
# draw; each at most the larger of the two numbers, which is at most 2 x or one step.
SHARE = 12

FORMATS = [StateFormat(name) for name in ("dynamic4", "dynamic4_minus_one", "unsigned_dynamic4", "linear4")]
FORMATS += [StateFormat(name) for name in ("dynamic8", "unsigned_dynamic8", "linear8", "float8")]


def label(chosen: StateFormat) -> str:
    return chosen.map.name.lower()


def assert_decoded(got: Tensor, data: Tensor, scales: Tensor, chosen: StateFormat, what: str) -> None:
    """Check float32 numbers read from codes; subnormal ones may be off by the smallest number."""
    codes = quant.unpack(data.cpu(), chosen.map, got.numel())
    expected = quant.dequantize(codes, spread_scales(chosen, scales.cpu(), tuple(got.shape)), chosen.map)
    assert_stored(got.flatten(), expected, DECODE * U * expected.abs() + 2.0**-149, lambda x: x.float(), what)


def side_of(chosen: StateFormat, shape: tuple[int, ...]) -> int | None:
    """Return the side of the tiles whose rows and columns have scales; None where blocks have."""
    if not chosen.has_matrix_scales(shape):
        return None
    return chosen.block if chosen.scaling == "grid" else max(shape[0], math.prod(shape[1:]))


def find_scales(chosen: StateFormat, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the scales of values in the order of memory."""
    side = side_of(chosen, shape)
    if side is None:
        return quant.block_scales(values, chosen.block, chosen.scale_dtype)
    return quant.matrix_scales(values.view(shape[0], -1), side).float().double()


def spread_scales(chosen: StateFormat, scales: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the scale of each element."""
    numel, side = math.prod(shape), side_of(chosen, shape)
    if side is None:
        return scales.double().repeat_interleave(chosen.block)[:numel]
    return quant.smaller_scales(scales.double(), shape[0], numel // shape[0], side).flatten()


def assert_encoded(
    data: Tensor,
    scales: Tensor,
    values: Tensor,
    bound: Tensor,
    chosen: StateFormat,
    words: Tensor | None,
    what: str,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Check the codes and scales of a state whose exact values, in the order of memory, are within ``bound`` of ``values``.

    Every scale is the rounded largest magnitude of what shares it. A code's number is no further from values / scale than the
    nearest one is, but for the error of values / scale; where ``words`` are given, it is the reference's but for numbers where
    that error decides a tie or a draw.
    """
    data, scales = data.cpu(), scales.cpu()
    numel = values.numel()
    shape = (numel,) if shape is None else shape
    assert (data.dtype, tuple(data.shape)) == (torch.uint8, (chosen.code_bytes(numel),)), what
    assert (scales.dtype, tuple(scales.shape)) == (chosen.scale_dtype, (chosen.scale_count(shape),)), what
    if numel == 0:
        return
    least, most = ((values.abs() + sign * bound).clamp(min=0) for sign in (-1, 1))
    low, high = (find_scales(chosen, x, shape) for x in (least, most))
    stored = scales.double()
    right = (stored >= low) & (stored <= high) | stored.isnan() & high.isnan()
    assert right.all(), f"{what}: scales {stored[~right][:3]} not in [{low[~right][:3]}, {high[~right][:3]}]"
    codes = quant.unpack(data, chosen.map, numel)
    if chosen.bits == 4 and numel % 2:
        assert data[-1] >> 4 == 0, f"{what}: the unused half of the last byte is {data[-1] >> 4}"

    numbers, usable = quant.usable(chosen.map)
    number_of = torch.full((256,), torch.nan, dtype=torch.float64)
    number_of[usable] = numbers
    if label(chosen) == "float8":
        number_of[0x80] = 0.0
    spread = spread_scales(chosen, stored, shape)
    decodes = spread.isfinite() & (spread > 0)
    x = torch.where(decodes, values / spread, 0.0)
    slack = torch.where(decodes, bound / spread, 0.0) + ENCODE * U * x.abs()
    near, margin, drawn = quant.quantize(values, spread, chosen.map, words=words)
    got = number_of[codes]
    assert not got.isnan().any(), f"{what}: a code that no number is rounded to"
    if words is None:
        nearest = number_of[near]
        wrong = (got - x).abs() > (nearest - x).abs() + 2 * slack
    else:
        slack = slack + SHARE * U * torch.maximum(2 * x.abs(), number_of[near].abs())
        wrong = (got != number_of[near]) & (margin > slack) & (drawn > slack)
        assert ((got - number_of[near]).abs() <= (numbers.diff().max() * 2)).all()
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {numel} codes wrong, first at {i}: code {int(codes[i])} is {got[i]:.6g}, expected "
            f"{number_of[near[i]]:.6g} for {x[i]:.9g} (scale {spread[i]:.6g})"
        )
