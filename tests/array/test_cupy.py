"""Steps and quantisation of CuPy arrays: queued on the stream that is named, bit for bit the CUDA ops of torch."""

from __future__ import annotations

import pytest
import torch

import backends
from arrays import assert_same_bits, bits
from blocks import FORMATS, label
from momentum import array
from momentum.array import CodeFormat
from momentum.quant import StateFormat
from ops.call import make_call
from ops.cases import FP16, FP32, TensorCase
from ops.quantised import SIGNED, quantised_call
from rules import RULES

cupy = pytest.importorskip("cupy", reason="cupy is not installed")
CUDA = backends.BACKENDS["cuda"]
pytestmark = pytest.mark.skipif(CUDA.missing() is not None, reason=str(CUDA.missing()))

CASES = [TensorCase((0,)), TensorCase((7,)), TensorCase((129, 65)), TensorCase((33, 9), FP16, FP16, (FP32, FP16, FP32))]


def as_array(value):
    if isinstance(value, list):
        return [as_array(item) for item in value]
    has_dtype = isinstance(value, torch.Tensor) and value.dtype != torch.bfloat16
    return cupy.from_dlpack(value) if has_dtype else value


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
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("kind", SIGNED)
def test_quantised_states_are_bitwise_those_of_the_torch_op(kind):
    rule = RULES["adam"]
    variant = next(iter(rule.variants.values()))
    ours, _ = quantised_call(rule, variant, kind, CASES, device="cuda", lr=[0.01])
    theirs = ours.clone()
    torch.cuda.synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    lists = {name: as_array(tensors) for name, tensors in ours.lists.items()}
    tensors = {"steps": as_array(ours.steps), "totals": as_array(ours.totals)}
    array.adam_(**lists, **tensors, **variant.hypers, **ours.options, stream=stream.ptr)
    stream.synchronize()
    theirs.run(CUDA)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("scaling", ["block", "rank_one", "grid"])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_quantising_is_bitwise_the_torch_op(chosen, scaling):
    """With the function that allocates, on the current stream of CuPy."""
    values = torch.randn(131, 70, device="cuda")
    values = values.abs() if chosen.is_unsigned else values
    properties = chosen.map, 64, "stochastic", scaling
    torch.cuda.synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        quantized = array.quantize(as_array(values), CodeFormat(*properties), seed=5, step=6)
        read = quantized.dequantize()
        stream.synchronize()
    state_format = StateFormat(chosen.map, 64, torch.float32, "stochastic", scaling)
    kind, block, rounding, number = state_format.op_numbers()
    codes = torch.empty(state_format.code_bytes(values.numel()), dtype=torch.uint8, device="cuda")
    scales = torch.empty(state_format.scale_count(values.shape), device="cuda")
    numbers = {"map": kind, "block": block, "scaling": number}
    CUDA.op("quantize_")(values, codes, scales, **numbers, rounding=rounding, seed=5, step=6)
    expected = torch.empty_like(values)
    CUDA.op("dequantize_")(codes, scales, expected, **numbers)
    for ours, theirs in zip((quantized.codes, quantized.scales, read), (codes, scales, expected), strict=True):
        assert ours.get().tobytes() == bits(theirs)


def test_quantising_asks_for_a_stream():
    values, codes, scales = cupy.zeros(3, cupy.float32), cupy.zeros(3, cupy.uint8), cupy.zeros(1, cupy.float32)
    with pytest.raises(ValueError, match=r"quantize_: stream: CUDA arrays need one"):
        array.quantize_(values, codes, scales, map=5, block=64)
    with pytest.raises(ValueError, match=r"scales: expected an array on CUDA device 0 as the first one, got the CPU"):
        array.quantize_(values, codes, torch.zeros(1), map=5, block=64, stream=0)


def test_a_stream_is_asked_for():
    arrays = [[cupy.zeros(3, cupy.float32)] for _ in range(4)]
    with pytest.raises(ValueError, match="stream: CUDA arrays need one"):
        array.adam_(*arrays, steps=cupy.zeros(2, cupy.float32), lr=0.1)


def test_mixed_devices_are_refused():
    arrays = [[cupy.zeros(3, cupy.float32)] for _ in range(4)]
    with pytest.raises(ValueError, match="steps: expected an array on CUDA device 0 as the first one, got the CPU"):
        array.adam_(*arrays, steps=torch.zeros(2), lr=0.1, stream=0)
