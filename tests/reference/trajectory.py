"""Runs an optimizer class and a reference rule side by side in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from momentum.reference import apply_step

SHAPES = [(16, 12), (12,), (4, 3, 3, 3), (1,), ()]


def gradients(shape: tuple[int, ...], steps: int, seed: int = 0) -> Iterator[Tensor]:
    """Yield gradients with occasional spikes."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        grad = torch.randn(shape, generator=generator, dtype=torch.float64)
        spikes = torch.rand(shape, generator=generator, dtype=torch.float64) < 0.05
        yield torch.where(spikes, grad * 300, grad)


def start(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def with_class(make: Callable, shape: tuple[int, ...], steps: int) -> list[Tensor]:
    """Return the parameter after every step of the optimizer ``make([param])``."""
    param = torch.nn.Parameter(start(shape))
    optimizer = make([param])
    path = []
    for grad in gradients(shape, steps):
        param.grad = grad.clone()
        optimizer.step()
        path.append(param.detach().clone())
    return path


def with_reference(
    rule: Callable,
    states: dict[str, tuple[int, ...] | None],
    shape: tuple[int, ...],
    steps: int,
    options: dict | Callable[[int], dict],
) -> list[Tensor]:
    """Return the parameter after every step of ``rule``; a state is zero at first, of the parameter's shape if None."""
    param = start(shape)
    state = {name: torch.zeros(shape if size is None else size, dtype=torch.float64) for name, size in states.items()}
    path = []
    for step, grad in enumerate(gradients(shape, steps), start=1):
        chosen = options(step) if callable(options) else options
        param, state = apply_step(rule, param, grad, state, step, **chosen)
        path.append(param)
    return path


def assert_same_path(ours: list[Tensor], theirs: list[Tensor], relative: float) -> None:
    """Compare two paths; the scale is the largest parameter, because updates may cancel."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
        scale = float(b.abs().max())
        error = float((a - b).abs().max())
        assert error <= relative * scale, f"step {step}: {error:.3g} of {scale:.3g}"
