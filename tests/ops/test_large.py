"""Tensors of more than 2^31 elements: wherever an element lies, it gets what it would get in a small tensor."""

from __future__ import annotations

import pytest
import torch

from backends import BACKENDS
from momentum.enums import Rounding
from momentum.reference.reductions import ABSMAX, SUM, TENSOR
from ops.call import Call, make_call
from ops.cases import BF16, TensorCase
from rules import RULES, first
from tolerances import bit_equal

CUDA = BACKENDS["cuda"]
pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(CUDA.missing() is not None, reason=str(CUDA.missing())),
]

NUMEL = 2**32 + 2**31 + 5
WINDOW = 4096
STARTS = [0, 2**31 - WINDOW // 2, 2**32 - WINDOW // 2, NUMEL - WINDOW]


@pytest.fixture
def memory():
    free = torch.cuda.mem_get_info()[0]
    if free < 5 * 2 * NUMEL:
        pytest.skip(f"cuda: {free >> 30} GiB of free memory, {5 * 2 * NUMEL >> 30} needed")
    yield
    torch.cuda.empty_cache()


@pytest.mark.parametrize("rounding", list(Rounding))
def test_step(memory, rounding):
    """Windows of the large step are bit-equal to steps of those windows alone, random bits included."""
    adam = RULES["adam"]
    options = {"rounding": rounding, "seeds": [9]}
    whole = make_call(adam, first(adam), [TensorCase((0,), BF16, BF16, (BF16, BF16))], device="cuda", **options)
    generator = torch.Generator("cuda").manual_seed(0)
    for tensors in whole.lists.values():
        tensors[0] = torch.empty(NUMEL, dtype=BF16, device="cuda").uniform_(0.1, 1.0, generator=generator)
    windows = make_windows(whole)
    whole.run(CUDA)
    windows.run(CUDA)
    for name, tensors in windows.lists.items():
        for start, tensor in zip(STARTS, tensors, strict=True):
            assert bit_equal(tensor, whole.lists[name][0][start : start + WINDOW]), f"{name} at {start}"


def make_windows(whole: Call) -> Call:
    cases = [TensorCase((WINDOW,), BF16, BF16, (BF16, BF16))] * len(STARTS)
    shards = [number for start in STARTS for number in (start, WINDOW, WINDOW)]
    windows = make_call(whole.rule, whole.variant, cases, device="cuda", shards=shards, **whole.options)
    for name, tensors in windows.lists.items():
        for start, tensor in zip(STARTS, tensors, strict=True):
            tensor.copy_(whole.lists[name][0][start : start + WINDOW])
    windows.steps[:-1] = whole.steps[0]
    return windows


def test_reductions(memory):
    """The sum of so many ones is their number, and the maximum sits behind 2^32."""
    x = torch.ones(NUMEL, dtype=BF16, device="cuda")
    x[-1] = -2.0
    out = torch.zeros(1, dtype=torch.float64, device="cuda")
    CUDA.op("segment_reduce")([x], [], out, kind=SUM, axis=TENSOR)
    assert out.item() == NUMEL - 3
    CUDA.op("segment_reduce")([x], [], out, kind=ABSMAX, axis=TENSOR)
    assert out.item() == 2.0
