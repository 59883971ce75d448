"""Operations on lists of tensors without a gradient: zeroth-order steps, resets, quantisation; in plain torch beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.parameters import Shapes, numel, shrunk
from bench.runner.case import Call, Case, Contender
from momentum.functional import reset_state_
from momentum.quant import Quantized, dequantize, quantize
from momentum.quant.formats import FORMATS, table
from momentum.zeroth_order import QZO

PLAIN = "plain torch"
SIZE, STEP = 1e-3, 1e-5


def cases(shrink: int) -> list[Case]:
    """All cases; ``shrink`` divides the number of elements."""
    large, many = shrunk(((20_000_000,),), shrink), shrunk(((4096,),) * 1000, shrink)
    return [
        _case("qzo-fp32-1x20m", "QZO step without its losses", large, 28.0, 12.0, _randn, _zeroth_order, _plain_zeroth_order),
        _case(
            "qzo-fp32-1000x4096", "QZO step without its losses", many, 28.0, 12.0, _randn, _zeroth_order, _plain_zeroth_order
        ),
        _case("reset-fp32-1x20m", "Resetting states", large, 4.0, 0.0, _randn, _reset, _foreach_zero),
        _case("reset-fp32-1000x4096", "Resetting states", many, 4.0, 0.0, _randn, _reset, _foreach_zero),
        *(case for name in ("int4", "int8") for case in _quantisation(name, large)),
    ]


def _case(
    name: str,
    title: str,
    shapes: Shapes,
    moved: float,
    memory: float,
    inputs: Callable[[Shapes, torch.device], Any],
    ours: Callable[[Any], Call],
    plain: Callable[[Any], Call],
) -> Case:
    """``moved`` and ``memory`` are bytes per element: what a call must read or write, and what plain torch needs besides."""
    count = numel(shapes)
    return Case(
        name=name,
        title=f"{title}, {name.partition('-')[2]}",
        elements=count,
        inputs=lambda device: inputs(shapes, device),
        memory=4 * count,
        contenders=(
            Contender("momentum", ours, moved * count, int(min(memory, 8.0) * count)),
            Contender(PLAIN, plain, moved * count, int(memory * count)),
        ),
        peer=PLAIN,
        twin=lambda device: inputs(((4,),) * len(shapes), device),
    )


def _randn(shapes: Shapes, device: torch.device) -> list[Tensor]:
    return [torch.randn(shape, device=device) for shape in shapes]


def _zeroth_order(params: Sequence[Tensor]) -> Call:
    optimizer = QZO(params, lr=STEP, perturbation=SIZE, floor=None)
    return lambda: optimizer.step(lambda: 1.0)


def _plain_zeroth_order(params: Sequence[Tensor]) -> Call:
    """The noise is drawn three times rather than kept, as published code has it."""
    generator = torch.Generator(params[0].device)

    def move(origins: Sequence[Tensor], by: float) -> None:
        generator.manual_seed(0)
        for p, origin in zip(params, origins, strict=True):
            noise = torch.randn(p.shape, device=p.device, generator=generator)
            torch.add(origin, noise, alpha=by, out=p)

    def call() -> None:
        origins = [p.clone() for p in params]
        for by in (SIZE, -SIZE, 0.0):
            move(origins, by)

    return call


def _reset(states: Sequence[Tensor]) -> Call:
    return lambda: reset_state_(states)


def _foreach_zero(states: Sequence[Tensor]) -> Call:
    return lambda: torch._foreach_zero_(list(states))


def _quantisation(name: str, shapes: Shapes) -> list[Case]:
    """To codes and back, of one tensor."""
    chosen = FORMATS[name][False]
    moved = 4 + chosen.bytes_per_element

    def codes(of: Shapes, device: torch.device) -> Quantized:
        return quantize(_randn(of, device)[0], name)

    def ours(inputs: Sequence[Tensor]) -> Call:
        return lambda: quantize(inputs[0], name)

    def plain(inputs: Sequence[Tensor]) -> Call:
        numbers, order = table(chosen.map).to(inputs[0].device, torch.float32).sort()
        middles, order = (numbers[1:] + numbers[:-1]) / 2, order.to(torch.uint8)

        def call() -> tuple[Tensor, Tensor]:
            blocks = torch.nn.functional.pad(inputs[0], (0, -inputs[0].numel() % chosen.block)).view(-1, chosen.block)
            scales = blocks.abs().amax(1, keepdim=True)
            found = order[torch.bucketize(blocks / scales, middles, out_int32=True)].flatten()
            return (found if chosen.bits == 8 else found[::2] | found[1::2] << 4), scales

        return call

    def back(q: Quantized) -> Call:
        return lambda: dequantize(q.codes, q.scales, q.format, q.shape)

    def plain_back(q: Quantized) -> Call:
        numbers = table(chosen.map).to(q.codes.device, torch.float32)

        def call() -> Tensor:
            codes = q.codes if chosen.bits == 8 else torch.stack([q.codes & 15, q.codes >> 4], -1).flatten()
            values = torch.nn.functional.pad(numbers[codes.int()], (0, -codes.numel() % chosen.block))
            return (values.view(-1, chosen.block) * q.scales[:, None]).flatten()[: q.shape.numel()]

        return call

    return [
        _case(f"quantize-{name}-1x20m", "Quantisation", shapes, moved, 16.0, _randn, ours, plain),
        _case(f"dequantize-{name}-1x20m", "Dequantisation", shapes, moved, 16.0, codes, back, plain_back),
    ]
