"""Quantisation in blocks: the scale of each block, the nearest or a random code of each number, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum._formats import code_bits
from momentum.enums import CodeMap
from momentum.quant.formats import table


def usable(code_map: CodeMap) -> tuple[Tensor, Tensor]:
    """Return the numbers in [-1, 1] that a quantiser chooses from, ascending, and their codes; one zero."""
    numbers, codes = table(code_map).sort(stable=True)
    distinct = torch.ones_like(numbers, dtype=torch.bool)
    distinct[1:] = numbers[1:] != numbers[:-1]
    chosen = distinct & (numbers.abs() <= 1)
    return numbers[chosen], codes[chosen]


def block_scales(values: Tensor, block: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the largest magnitude of each block of a vector, rounded to ``dtype``; NaN where that is not finite."""
    padded = torch.nn.functional.pad(values, (0, -values.numel() % block))
    scales = padded.view(-1, block).abs().amax(1).float().to(dtype)
    return torch.where(scales.isfinite(), scales, torch.nan)


def matrix_scales(matrix: Tensor, side: int) -> Tensor:
    """Return the largest magnitudes of each row within its tiles of ``side`` columns, then of each column likewise."""
    sizes, (rows, cols) = matrix.abs(), matrix.shape
    of_rows = torch.stack([sizes[:, i : i + side].amax(1) for i in range(0, cols, side)], 1)
    of_columns = torch.stack([sizes[i : i + side].amax(0) for i in range(0, rows, side)])
    return torch.cat([of_rows.flatten(), of_columns.flatten()])


def smaller_scales(scales: Tensor, rows: int, cols: int, side: int) -> Tensor:
    """Return the scale of each element of a matrix: the smaller of its row's and its column's; NaN if one is not finite."""
    across, down = -(-cols // side), -(-rows // side)
    of_rows = scales[: rows * across].view(rows, across).repeat_interleave(side, 1)[:, :cols]
    of_columns = scales[rows * across :].view(down, cols).repeat_interleave(side, 0)[:rows]
    finite = of_rows.isfinite() & of_columns.isfinite()
    return torch.where(finite, torch.minimum(of_rows, of_columns), torch.nan)


def quantize(
    values: Tensor, scales: Tensor, code_map: CodeMap, block: int = 1, words: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the code of each element of a vector, and by how much it was chosen.

    ``values / scale`` is rounded to the nearest number; or, with random words, to that one or the one beyond it, to the latter
    if share + draw / 2^16 >= 1, where share is the part of the way that has been gone and draw the lower 16 bits of the word.
    The other two results are the distances to where another nearest number would be taken, and to where the draw would decide
    otherwise.
    """
    numbers, codes = usable(code_map)
    x = values.double() / scales.double().repeat_interleave(block)[: values.numel()]
    x = torch.where(x.isfinite(), x, 0.0)  # a block of zeros, or one whose scale is NaN
    middles = (numbers[1:] + numbers[:-1]) / 2
    near = torch.bucketize(x, middles)
    bounds = torch.cat([middles.new_tensor([-torch.inf]), middles, middles.new_tensor([torch.inf])])
    margin = torch.minimum(x - bounds[near], bounds[near + 1] - x)
    if words is None:
        return codes[near], margin, torch.full_like(x, torch.inf)
    step = torch.where(x > numbers[near], 1, -1)
    following = (near + step).clamp(0, numbers.numel() - 1)
    gap = numbers[following] - numbers[near]
    beyond = (x - numbers[near]) / gap + (words & 0xFFFF).double() / 2**16 - 1
    chosen = torch.where(beyond >= 0, following, near)
    return codes[chosen], margin, torch.where(gap == 0, torch.inf, (beyond * gap).abs())


def dequantize(codes: Tensor, scales: Tensor, code_map: CodeMap, block: int = 1) -> Tensor:
    """Return the numbers that codes, one per element, stand for."""
    return table(code_map)[codes.long()] * scales.double().repeat_interleave(block)[: codes.numel()]


def pack(codes: Tensor, code_map: CodeMap) -> Tensor:
    """Return codes as stored: those of 4 bits two to a byte, the first in the lower half."""
    if code_bits(code_map) == 8:
        return codes.to(torch.uint8)
    padded = torch.nn.functional.pad(codes, (0, codes.numel() % 2))
    return (padded[::2] | padded[1::2] << 4).to(torch.uint8)


def unpack(data: Tensor, code_map: CodeMap, numel: int) -> Tensor:
    """Return stored codes one per element."""
    if code_bits(code_map) == 8:
        return data.long()
    return torch.stack([data & 15, data >> 4], -1).flatten()[:numel].long()
