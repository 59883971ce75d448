"""Parameters with gradients, by shapes: what optimizers are timed on."""

from __future__ import annotations

import math

import torch

Shapes = tuple[tuple[int, ...], ...]


def parameters(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> list[torch.nn.Parameter]:
    """Parameters and gradients of plausible size, the same for everybody."""
    generator = torch.Generator(device).manual_seed(0)
    made = []
    for shape in shapes:
        value = torch.randn(shape, dtype=dtype, device=device, generator=generator)
        parameter = torch.nn.Parameter(value * 0.02)
        parameter.grad = torch.randn(shape, dtype=dtype, device=device, generator=generator)
        made.append(parameter)
    return made


def shrunk(shapes: Shapes, factor: int) -> Shapes:
    """As many tensors, each with its first dimension divided by ``factor``."""
    return tuple((max(1, shape[0] // factor), *shape[1:]) for shape in shapes)


def numel(shapes: Shapes) -> int:
    """Elements of all tensors."""
    return sum(math.prod(shape) for shape in shapes)
