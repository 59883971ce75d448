"""Losses with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.runner.case import Call, Case, Contender
from momentum.functional import stablemax_cross_entropy
from momentum.reference import stablemax

Loss = Callable[[Tensor, Tensor], Tensor]
PEER = "torch cross_entropy"


def cases(device: torch.device, shrink: int) -> list[Case]:
    """All cases for ``device``; ``shrink`` divides the number of rows."""
    return [
        _case("stablemax-fp32-512x32000", 512 // min(shrink, 128), 32_000, torch.float32),
        _case("stablemax-bf16-512x50257", 512 // min(shrink, 128), 50_257, torch.bfloat16),
        _case("stablemax-fp32-100000x113", 100_000 // shrink, 113, torch.float32),
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
