"""Tensors for the op tests: every mix of dtypes, sizes around every tile width, awkward memory."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FP32, BF16, FP16, FP64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
NARROW = (FP32, BF16, FP16)
GUARD = 64
"""Elements before and after each tensor that no kernel may touch; a multiple of 16 bytes for every dtype."""

# Around vector widths (4, 8), warps and blocks (32 .. 1024), tiles and chunks (1024, 8192), and one past 2^16.
EDGES = (0, 1, 3, 4, 5, 7, 8, 9, 31, 33, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 8191, 8192, 8193)
SHAPES: tuple[tuple[int, ...], ...] = (
    *((n,) for n in EDGES),
    (),
    (1, 1),
    (5, 7),
    (64, 33),
    (3, 1, 5),
    (2, 3, 4, 5),
    (1, 300),
    (300, 1),
    (0, 4),
    (4, 0),
    (0, 0),
    (129, 65),
)


@dataclass(frozen=True)
class TensorCase:
    """One parameter with all that belongs to it.

    Attributes
    ----------
    offset
        Elements between an aligned address and the first element, so 1 leaves 2-, 4- or 8-byte alignment.
    layout
        "contiguous", "channels_last" (4-D) or "transposed" (2-D): dense, but in another order.
    """

    shape: tuple[int, ...]
    param: torch.dtype = FP32
    grad: torch.dtype = FP32
    states: tuple[torch.dtype, ...] = (FP32, FP32, FP32)
    ema: torch.dtype = FP32
    offset: int = 0
    layout: str = "contiguous"

    @property
    def arithmetic(self) -> torch.dtype:
        return FP64 if self.param == FP64 else FP32

    @property
    def narrow(self) -> bool:
        """Whether the parameter is stored in fewer bits than the arithmetic has."""
        return self.param in (BF16, FP16)

    def strides(self) -> tuple[int, ...]:
        order = {
            "contiguous": range(len(self.shape)),
            "channels_last": (0, 2, 3, 1),
            "transposed": reversed(range(len(self.shape))),
        }[self.layout]
        strides, step = [0] * len(self.shape), 1
        for dim in reversed(list(order)):
            strides[dim] = step
            step *= max(self.shape[dim], 1)
        return tuple(strides)

    def place(self, values: Tensor, dtype: torch.dtype, device: str) -> Tensor:
        """Return a tensor of this case's memory layout between guards, holding ``values``."""
        numel = math.prod(self.shape)
        storage = torch.full((GUARD + self.offset + numel + GUARD,), -77.0, dtype=dtype, device=device)
        tensor = storage.as_strided(self.shape, self.strides(), GUARD + self.offset)
        return tensor.copy_(values)


def guards_intact(tensor: Tensor) -> bool:
    """Whether the memory around a tensor made by `TensorCase.place` is untouched."""
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    first = tensor.storage_offset()
    return bool((whole[:first] == -77).all() and (whole[first + tensor.numel() :] == -77).all())


def dtype_mixes() -> list[TensorCase]:
    """Return every combination of parameter, gradient and two state dtypes, over all shapes, aligned and not."""
    wide = (*NARROW, FP64)
    mixes = [*itertools.product(NARROW, NARROW, NARROW, NARROW)]
    mixes += [(FP64, grad, first, second) for grad, first, second in itertools.product(wide, wide, wide) if grad == first]
    mixes += [(FP64, FP64, FP64, FP64), (FP64, FP32, FP64, FP16)]
    # 32 shapes and 4 offsets, combined by counters of different period, so that each mix meets both small and large
    # sizes.
    return [
        TensorCase(SHAPES[i * 7 % len(SHAPES)], param, grad, (first, second, wide[i % 3]), wide[i % 3], (i // 3) % 4 % 2)
        for i, (param, grad, first, second) in enumerate(mixes)
    ]


def layouts() -> list[TensorCase]:
    """Return dense tensors whose memory is not in row-major order."""
    return [
        TensorCase((2, 3, 8, 8), layout="channels_last"),
        TensorCase((2, 16, 3, 5), BF16, FP32, layout="channels_last", offset=1),
        TensorCase((33, 20), layout="transposed"),
        TensorCase((20, 33), FP64, FP64, (FP64,) * 3, FP64, layout="transposed"),
    ]


def sizes() -> list[TensorCase]:
    """Return every edge size in float32, aligned and not, and one large tensor."""
    aligned = [TensorCase(shape) for shape in SHAPES]
    return [*aligned, *(replace(case, offset=1) for case in aligned), TensorCase((65_537,)), TensorCase((513, 257))]


def mixed_few() -> list[TensorCase]:
    """Return a short list for the options: one of each parameter dtype, in sizes that leave heads and tails."""
    return [
        TensorCase((1025,)),
        TensorCase((33, 20), BF16, BF16, (FP32, BF16, FP32)),
        TensorCase((257,), FP16, FP16, (FP16, FP32, FP16), FP16, offset=1),
        TensorCase((12, 33), FP64, FP64, (FP64, FP64, FP64), FP64),
        TensorCase((), BF16, FP32, offset=1),
        TensorCase((0,)),
        TensorCase((8193,), FP32, FP16, (BF16, FP32, BF16), BF16, offset=1),
        TensorCase((1,), FP32, BF16),
    ]
