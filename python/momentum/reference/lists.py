"""Operations over lists that are no step: extrapolation, and zeroth-order moves along noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momentum.reference.formats import words

GOLDEN = 0x9E3779B97F4A7C15


def extrapolate(param: Tensor, previous: Tensor, alpha: float) -> Tensor:
    """Return p + alpha (p - previous)."""
    return param + alpha * (param - previous)


def normal(seed: int, index: int, step: int, numel: int) -> Tensor:
    """Return the noise of tensor ``index`` of a list: pairs after Box and Muller from Philox words of 24 bits."""
    drawn = words((seed + index * GOLDEN) % 2**64, step, torch.arange(numel + numel % 2)).double()
    first, second = drawn[0::2].div(256).floor(), drawn[1::2].div(256).floor()
    radius = (-2 * ((first + 1) * 2.0**-24).log()).sqrt()
    angle = math.pi * second * 2.0**-23
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).flatten()[:numel]


def zeroth_order(
    param: Tensor, noise: Tensor, losses: tuple[float, float], size: float, lr: float, clip: float, floor: float
) -> Tensor:
    """Return the parameter after a step along the noise by the slope between the losses at + size and - size."""
    slope = min(max((losses[0] - losses[1]) / (2 * size), -clip), clip)
    return (param - lr * slope * noise).clamp(min=floor)
