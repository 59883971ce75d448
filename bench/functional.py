"""Losses with their gradients, and operations on lists of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench import lists
from bench.parameters import Shapes, numel, shrunk
from bench.runner.case import Call, Case, Contender
from momentum.functional import extrapolate_, stablemax_cross_entropy
from momentum.gradients import SAMGS
from momentum.reference import SamgsState, samgs, stablemax

Loss = Callable[[Tensor, Tensor], Tensor]
PEER = "torch cross_entropy"


def cases(device: torch.device, shrink: int) -> list[Case]:
    """All cases for ``device``; ``shrink`` divides the number of rows."""
    return [
        _case("stablemax-fp32-512x32000", 512 // min(shrink, 128), 32_000, torch.float32),
        _case("stablemax-bf16-512x50257", 512 // min(shrink, 128), 50_257, torch.bfloat16),
        _case("stablemax-fp32-100000x113", 100_000 // shrink, 113, torch.float32),
        _extrapolation("extrapolate-fp32-1x20m", shrunk(((20_000_000,),), shrink)),
        _extrapolation("extrapolate-fp32-1000x4096", shrunk(((4096,),) * 1000, shrink)),
        _surgery("samgs-fp32-3-tasks-100x40k", shrunk(((40_000,),) * 100, shrink)),
        *lists.cases(shrink),
    ]


def _case(name: str, rows: int, classes: int, dtype: torch.dtype) -> Case:
    count, size = rows * classes, dtype.itemsize
    moved = 3.0 * count * size  # one read for the loss, a read and a write for the gradient

    def contender(title: str, loss: Loss, temporaries: int) -> Contender:
        return Contender(title, lambda inputs: _step(loss, inputs), moved, temporaries)

    return Case(
        name=name,
        title=f"StableMax loss and gradient, {name.partition('-')[2]}",
        elements=count,
        inputs=lambda device: _inputs(rows, classes, dtype, device),
        memory=2 * count * size,
        contenders=(
            contender("momentum", stablemax_cross_entropy, 0),
            contender(PEER, cross_entropy, 2 * count * size),
            contender("plain torch, float64", _plain, 6 * count * 8),
        ),
        peer=PEER,
        twin=lambda device: _inputs(1, 4, dtype, device),
    )


def _inputs(rows: int, classes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    logits = torch.randn(rows, classes, device=device).to(dtype).requires_grad_()
    return logits, torch.randint(0, classes, (rows,), device=device)


def _step(loss: Loss, inputs: Any) -> Call:
    logits, target = inputs

    def call() -> None:
        logits.grad = None
        loss(logits, target).backward()

    return call


def _plain(logits: Tensor, target: Tensor) -> Tensor:
    """As the official code has it."""
    s = stablemax(logits.double())
    probabilities = s / s.sum(-1, keepdim=True)
    return -probabilities.gather(-1, target[:, None]).log().mean()


def _extrapolation(name: str, shapes: Shapes) -> Case:
    """One round, which keeps the parameters for the next."""
    count = numel(shapes)

    def foreach(params: list[Tensor], previous: list[Tensor]) -> None:
        old = [p.clone() for p in params]
        torch._foreach_add_(params, torch._foreach_sub(params, previous), alpha=0.5)
        torch._foreach_copy_(previous, old)

    def ours(params: list[Tensor], previous: list[Tensor]) -> None:
        extrapolate_(params, previous, 0.5)

    def lists(of: Shapes, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        params = [torch.randn(shape, device=device) for shape in of]
        return params, [p.clone() for p in params]  # equal, so that no number grows from call to call

    return Case(
        name=name,
        title=f"Extrapolation, {name.partition('-')[2]}",
        elements=count,
        inputs=lambda device: lists(shapes, device),
        memory=8 * count,
        contenders=(
            Contender("momentum", lambda inputs: lambda: ours(*inputs), 16.0 * count, 0),
            Contender("torch foreach", lambda inputs: lambda: foreach(*inputs), 16.0 * count, 8 * count),
        ),
        peer="torch foreach",
        twin=lambda device: lists(((4,),) * len(shapes), device),
    )


def _surgery(name: str, shapes: Shapes, tasks: int = 3) -> Case:
    """Gradient surgery; in plain torch on one matrix of float32, as the official code has it."""
    count = numel(shapes)
    moved = (16.0 * tasks + 4) * count

    def ours(grads: list[list[Tensor]]) -> Call:
        surgery = SAMGS()
        return lambda: surgery.combine(grads)

    def plain(grads: list[list[Tensor]]) -> Call:
        size, device = sum(grad.numel() for grad in grads[0]), grads[0][0].device
        state = SamgsState(torch.zeros(tasks, size, device=device), torch.zeros((), device=device), 0)

        def call() -> None:
            nonlocal state
            flat = torch.stack([torch.cat([grad.flatten() for grad in members]) for members in grads])
            combined, _, state = samgs(flat, state, 0.9, 0.99, 0.1)
            combined.split([grad.numel() for grad in grads[0]])

        return call

    def lists(of: Shapes, device: torch.device) -> list[list[Tensor]]:
        return [[torch.randn(shape, device=device) for shape in of] for _ in range(tasks)]

    return Case(
        name=name,
        title=f"SAM-GS, {name.partition('-')[2]}",
        elements=count,
        inputs=lambda device: lists(shapes, device),
        memory=4 * tasks * count,
        contenders=(
            Contender("momentum", ours, moved, 4 * (tasks + 1) * count),
            Contender("plain torch", plain, moved, 16 * tasks * count),
        ),
        peer="plain torch",
        twin=lambda device: lists(((4,),) * len(shapes), device),
    )
