"""The steps on CuPy arrays: queued on the stream that is named, bit for bit the CUDA op of torch."""

from __future__ import annotations

import pytest
import torch

import backends
from momentum import array
from ops.call import make_call
from ops.cases import FP16, FP32, TensorCase
from rules import RULES

cupy = pytest.importorskip("cupy", reason="cupy is not installed")
CUDA = backends.BACKENDS["cuda"]
pytestmark = pytest.mark.skipif(CUDA.missing() is not None, reason=str(CUDA.missing()))

CASES = [TensorCase((0,)), TensorCase((7,)), TensorCase((129, 65)), TensorCase((33, 9), FP16, FP16, (FP32, FP16, FP32))]


def as_array(value):
    if isinstance(value, list):
        return [as_array(item) for item in value]
    return cupy.from_dlpack(value) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bitwise_equal_to_the_torch_op(rule):
    variant = next(iter(rule.variants.values()))
    ours = make_call(rule, variant, CASES, device="cuda", lr=[0.01])
    theirs = ours.clone()
    torch.cuda.synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    lists = {name: as_array(tensors) for name, tensors in ours.lists.items()}
    function = getattr(array, f"{rule.name}_")
    function(**lists, steps=as_array(ours.steps), totals=as_array(ours.totals), lr=0.01, **variant.hypers, stream=stream.ptr)
    stream.synchronize()
    theirs.run(CUDA)
    for (name, ran), expected in zip(ours.tensors().items(), theirs.tensors().values(), strict=True):
        assert torch.equal(ran, expected), name


def test_a_stream_is_asked_for():
    arrays = [[cupy.zeros(3, cupy.float32)] for _ in range(4)]
    with pytest.raises(ValueError, match="stream: CUDA arrays need one"):
        array.adam_(*arrays, steps=cupy.zeros(2, cupy.float32), lr=0.1)


def test_mixed_devices_are_refused():
    arrays = [[cupy.zeros(3, cupy.float32)] for _ in range(4)]
    with pytest.raises(ValueError, match="steps: expected an array on CUDA device 0 as the first one, got the CPU"):
        array.adam_(*arrays, steps=torch.zeros(2), lr=0.1, stream=0)
