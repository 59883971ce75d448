"""How a parameter is stored: rounded to nearest or stochastically, in two parts (Kahan, or 24 bits), or beside a master."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference.philox import WORD, philox4x32


def nearest(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to nearest, ties to even, by way of float32, in which the steps of narrower parameters are computed."""
    return value if dtype == torch.float64 else value.float().to(dtype)


def stochastic(value: Tensor, dtype: torch.dtype, words: Tensor) -> Tensor:
    """Round finite float32 values away from zero with the probability of the fraction that is cut off.

    The lower 16 bits of a word are compared with the fraction: away if fraction + draw / 2^16 >= 1. A value
    beyond the largest finite number rounds between it and the next power of two, stored as infinity.
    """
    size = value.abs().double()
    rounded = size.float().to(dtype)
    bits = rounded.view(torch.int16)
    cut = (bits - (rounded.double() > size).short()).view(dtype)
    above = (cut.view(torch.int16) + 1).view(dtype).double()
    below = (cut.view(torch.int16) - 1).view(dtype).double()
    step = torch.where(above.isinf(), cut.double() - below, above - cut.double())
    draw = (words & 0xFFFF).double() / 2**16
    away = (size - cut.double()) / step + draw >= 1
    result = torch.where(away, above, cut.double()).copysign(value.double()).to(dtype)
    return torch.where(value.isfinite(), result, value.to(dtype))


def words(seed: int, step: int, index: Tensor) -> Tensor:
    """Return the random word of each element of a whole tensor: word i % 4 of the group i // 4."""
    group, zero = index // 4, torch.zeros_like(index)
    counter = (group & WORD, group >> 32 & WORD, zero + step, zero)
    four = philox4x32(counter, (seed & WORD, seed >> 32 & WORD))
    return four.gather(-1, (index % 4).unsqueeze(-1)).squeeze(-1)


def kahan_split(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Store a value as the sum of two numbers: its rounding, and the rounding of what that lost."""
    high = nearest(value, dtype)
    return high, nearest(value - high.double(), dtype)


def low_bits_join(high: Tensor, low: Tensor) -> Tensor:
    """Return the number of 24 bits that a bfloat16 and the eight bits below it make: ``low`` numbers of 24 bits further out."""
    magnitude = (high.abs().view(torch.int16).int() << 16) + (low.int() << 8)
    return magnitude.view(torch.float32).double().copysign(high.double())


def low_bits_split(value: Tensor, words: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Round float32 values to 24 bits, and split them in the nearest bfloat16 (halves away from zero) and the rest.

    Rounded to nearest, ties to even, or away from zero if fraction + draw / 2^8 >= 1: a draw is the lower eight bits of a word.
    """
    size = value.float().double().abs()
    spacing = torch.ldexp(torch.ones_like(size), size.frexp().exponent.clamp(min=-125) - 16)
    places = size / spacing
    places = places.round() if words is None else (places + (words & 0xFF).double() / 2**8).floor()
    bits = (places * spacing).float().view(torch.int32) >> 8
    upper = bits + 128 >> 8
    high = upper.short().view(torch.bfloat16).double().copysign(value.double()).to(torch.bfloat16)
    finite = value.isfinite()
    return torch.where(finite, high, value.to(torch.bfloat16)), torch.where(finite, bits - (upper << 8), 0).to(torch.int8)
