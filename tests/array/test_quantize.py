"""quantize_ and dequantize_ on NumPy arrays: bit for bit the torch ops, and refusals that write nothing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import backends
from arrays import as_array, bits
from blocks import FORMATS, label
from momentum import array, quant
from momentum.quant import StateFormat
from ops.cases import EDGES

CPU = backends.BACKENDS["cpu"]
SIZES = [*EDGES, 63, 64, 65, 511, 513, 65_537]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def compare(values, chosen, *, seed=0, step=0, offset=0, output=torch.float32):
    """Quantise and read back with both; ``offset`` bytes or elements off their alignment. Return what was read."""
    numbers = dict(zip(("map", "block", "rounding", "scaling"), chosen.op_numbers(), strict=True))
    stored = {name: numbers[name] for name in ("map", "block", "scaling")}
    results = []
    for run in (lambda name, tensors, **n: getattr(array, name)(*as_array(tensors), **n), run_op):
        codes = torch.full((offset + chosen.code_bytes(values.numel()) + 1,), 0xA5, dtype=torch.uint8)
        scales = torch.full((offset + chosen.scale_count(values.shape) + 1,), -7.0, dtype=chosen.scale_dtype)
        read = torch.full((offset + values.numel() + 1,), -7.0, dtype=output)
        used = read[offset:-1].view(values.shape)
        run("quantize_", [values, codes[offset:-1], scales[offset:-1]], **numbers, seed=seed, step=step)
        run("dequantize_", [codes[offset:-1], scales[offset:-1], used], **stored)
        results.append((codes, scales, read))
    assert [bits(t) for t in results[0]] == [bits(t) for t in results[1]], f"{chosen} of {tuple(values.shape)}"
    return results[0][2][offset:-1]


def run_op(name, tensors, **numbers):
    CPU.op(name)(*tensors, **numbers)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [64, 128, 256])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_blocks_and_tails(chosen, block, dtype):
    """Every map, block, size and dtype; scale dtypes, roundings and alignments take turns."""
    generator = torch.Generator().manual_seed(block)
    for k, numel in enumerate(SIZES):
        turn = StateFormat(chosen.map, block, DTYPES[k % 3], ("nearest", "stochastic")[k % 2])
        values = (torch.randn(numel, generator=generator) * 10.0 ** torch.randint(-6, 3, (numel,), generator=generator)).to(
            dtype
        )
        values = values.abs() if chosen.is_unsigned else values
        compare(values, turn, seed=k - 3, step=k, offset=k % 4, output=DTYPES[(k + 1) % 3])


@pytest.mark.parametrize(
    "shape", [(2, 2), (3, 5), (65, 129), (1, 300), (300, 1), (300,), (2, 4099), (7, 5, 33), (0, 4), ()], ids=str
)
@pytest.mark.parametrize("scaling", ["rank_one", "grid"])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_matrix_scales(chosen, scaling, shape):
    generator = torch.Generator().manual_seed(7)
    for k, dtype in enumerate(DTYPES):
        values = (torch.randn(shape, generator=generator) * 10.0 ** torch.randint(-5, 3, shape, generator=generator)).to(dtype)
        values = values.abs() if chosen.is_unsigned else values
        rounding = ("nearest", "stochastic")[k % 2]
        compare(values, StateFormat(chosen.map, 64, rounding=rounding, scaling=scaling), seed=5, step=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_every_16_bit_input(chosen, rounding, dtype):
    """In the order of the patterns, NaN and infinity among them; and all of [-1, 1] in blocks whose scale is 1."""
    chosen = StateFormat(chosen.map, rounding=rounding)
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).short().view(dtype)
    read = compare(patterns, chosen)
    assert read.isnan().any()
    inside = patterns[patterns.abs() <= 1]
    rows = torch.nn.functional.pad(inside, (0, -inside.numel() % (chosen.block - 1))).view(-1, chosen.block - 1)
    read = compare(torch.cat([torch.ones(rows.shape[0], 1, dtype=dtype), rows], 1).flatten(), chosen)
    assert read.isfinite().all()


@pytest.mark.parametrize("output", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 0.0, 2.0**-149, 65504.0, 3e38, torch.inf, torch.nan])
@pytest.mark.parametrize("chosen", FORMATS, ids=label)
def test_every_code(chosen, scale, output):
    """Every byte in every place of a word, for scales of every dtype."""
    data = torch.arange(257).repeat(4).to(torch.uint8)
    numel = data.numel() * 8 // chosen.bits
    for dtype in DTYPES:
        scales = torch.full((chosen.scale_count((numel,)),), scale).to(dtype)
        ours, theirs = torch.empty(numel, dtype=output), torch.empty(numel, dtype=output)
        numbers = {"map": int(chosen.map), "block": chosen.block}
        array.dequantize_(as_array(data), as_array(scales), as_array(ours), **numbers)
        CPU.op("dequantize_")(data, scales, theirs, **numbers)
        assert bits(ours) == bits(theirs)
    if scale == 1.0:
        exact = quant.table(chosen.map)
        index = data.long() if chosen.bits == 8 else torch.stack([data.long() & 15, data.long() >> 4], 1).flatten()
        if output == torch.float32:
            torch.testing.assert_close(ours.double(), exact[index], rtol=2.0**-21, atol=0, equal_nan=True)


# What is changed in a good call, and what the message must say. The call has 300 elements in 3 blocks of 128.
MEMORY = np.zeros(1200, np.uint8)


def read_only(values):
    values.flags.writeable = False
    return values


REFUSED = {
    "codes_short": ({"codes": np.zeros(149, np.uint8)}, "codes: expected codes, uint8 with 150 elements, got uint8 with 149"),
    "codes_long": ({"codes": np.zeros(300, np.uint8)}, "codes: expected codes, uint8 with 150 elements, got uint8 with 300"),
    "codes_strided": ({"codes": np.zeros(300, np.uint8)[::2]}, "codes: expected a C-contiguous array"),
    "codes_int8": ({"codes": np.zeros(150, np.int8)}, "codes: expected codes, uint8 .* got int8"),
    "codes_float": ({"codes": np.zeros(150, np.float32)}, "codes: expected codes, uint8 .* got float32"),
    "scales_short": ({"scales": np.zeros(2, np.float32)}, "scales: expected float32 with 3 elements, got float32 with 2"),
    "scales_long": ({"scales": np.zeros(4, np.float32)}, "scales: expected float32 with 3 elements, got float32 with 4"),
    "scales_strided": ({"scales": np.zeros(6, np.float32)[::2]}, "scales: expected a C-contiguous array"),
    "scales_double": ({"scales": np.zeros(3)}, "scales: expected float32, bfloat16 or float16, got float64"),
    "scales_int": ({"scales": np.zeros(3, np.int32)}, "scales: expected float32, bfloat16 or float16, got int32"),
    "values_double": ({"VALUES": np.zeros(300)}, "VALUES: expected float32, bfloat16 or float16, got float64"),
    "values_int": ({"VALUES": np.zeros(300, np.int64)}, "VALUES: expected float32, bfloat16 or float16, got int64"),
    "values_complex": ({"VALUES": np.zeros(300, np.complex64)}, "VALUES: .* got complex64"),
    "values_strided": ({"VALUES": np.zeros(600, np.float32)[::2]}, "VALUES: expected a C-contiguous array"),
    "values_transposed": ({"VALUES": np.zeros((20, 15), np.float32).T}, "VALUES: expected a C-contiguous array"),
    "map_0": ({"map": 0}, r"map: expected a number in \[1, 8\], got 0"),
    "map_9": ({"map": 9}, r"map: expected a number in \[1, 8\], got 9"),
    "map_float": ({"map": 1.0}, "map: expected an integer, got 1.0"),
    "map_other": ({"map": 5}, "codes: expected codes, uint8 with 300 elements, got uint8 with 150"),
    "block_32": ({"block": 32}, "block: expected a block of 64, 128 or 256 elements, got 32"),
    "block_negative": ({"block": -64}, "block: expected a block of 64, 128 or 256 elements, got -64"),
    "block_other": ({"block": 64}, "scales: expected float32 with 5 elements, got float32 with 3"),
    "scaling_3": ({"scaling": 3}, r"scaling: expected a number in \[0, 2\], got 3"),
    "scaling_other": ({"scaling": 1, "VALUES": np.zeros((20, 15), np.float32)}, "scales: expected float32 with 35 elements"),
    "scaling_dtype": (
        {"scaling": 2, "scales": np.zeros(3, np.float16)},
        "scales: expected float32, as for all scales of rows and columns, got float16",
    ),
    "codes_in_values": ({"VALUES": MEMORY.view(np.float32), "codes": MEMORY[100:250]}, "(codes|VALUES) .* share memory"),
    "scales_in_values": (
        {"VALUES": MEMORY.view(np.float32), "scales": MEMORY[100:112].view(np.float32)},
        "(scales|VALUES) .* share memory",
    ),
    "stream": ({"stream": 0}, "stream: given, but the arrays are on the CPU"),
}
REFUSED_TO_WRITE = {
    "rounding": ({"rounding": 2}, r"rounding: expected a number in \[0, 1\], got 2"),
    "seed": ({"seed": 1.5}, "seed: expected an integer, got 1.5"),
    "step_negative": ({"step": -1}, r"step: expected a number in \[0, 4.29497e\+09\], got -1"),
    "step_large": ({"step": 2**32}, "step: expected a number in"),
    "codes_read_only": ({"codes": read_only(np.zeros(150, np.uint8))}, "codes: is written, but the array is read-only"),
    "scales_read_only": ({"scales": read_only(np.zeros(3, np.float32))}, "scales: is written, but the array is read-only"),
    "scales_in_codes": (
        {"codes": MEMORY[:150], "scales": MEMORY[100:112].view(np.float32)},
        "(codes|scales) and (codes|scales) share memory",
    ),
}
REFUSED_TO_READ = {
    "values_read_only": ({"VALUES": read_only(np.zeros(300, np.float32))}, "VALUES: is written, but the array is read-only"),
}
CALLS = [(op, *case) for op in ("quantize_", "dequantize_") for case in REFUSED.items()]
CALLS += [("quantize_", *case) for case in REFUSED_TO_WRITE.items()]
CALLS += [("dequantize_", *case) for case in REFUSED_TO_READ.items()]


@pytest.mark.parametrize(("op", "name", "case"), CALLS, ids=[f"{op}-{name}" for op, name, _ in CALLS])
def test_refused(op, name, case):
    """The message names op and argument; nothing has been written."""
    changes, message = case
    values = "input" if op == "quantize_" else "output"
    call = {values: np.arange(300, dtype=np.float32), "codes": np.full(150, 0xA5, np.uint8), "map": 1, "block": 128}
    call |= {"scales": np.full(3, -7, np.float32)} | {key.replace("VALUES", values): value for key, value in changes.items()}
    before = [bits(value) for value in call.values() if isinstance(value, np.ndarray)]
    message = message.replace("VALUES", values)
    with pytest.raises(ValueError, match=rf"momentum\.array\.{op}: (?:{message})"):
        getattr(array, op)(**call)
    assert [bits(value) for value in call.values() if isinstance(value, np.ndarray)] == before


def test_no_array():
    with pytest.raises(TypeError, match=r"momentum\.array\.quantize_: input: expected an array with __dlpack__, not list"):
        array.quantize_([1.0], np.zeros(1, np.uint8), np.zeros(1, np.float32), map=5, block=64)


def test_read_only_input_is_welcome():
    codes, scales = np.zeros(150, np.uint8), np.zeros(3, np.float32)
    array.quantize_(read_only(np.ones(300, np.float32)), codes, scales, map=1, block=128)
    assert scales.tolist() == [1, 1, 1]
    out = np.zeros(300, np.float32)
    array.dequantize_(read_only(codes), read_only(scales), out, map=1, block=128)
    assert (out == 1).all()


def test_reading_may_share_memory():
    data = np.zeros(1200, np.uint8)
    out = np.ones(300, np.float32)
    array.dequantize_(data[:150], data[100:112].view(np.float32), out, map=1, block=128)
    assert (out == 0).all()


def test_memory_is_released():
    values, codes, scales = np.ones(300, np.float32), np.zeros(150, np.uint8), np.zeros(3, np.float32)
    before = [sys.getrefcount(x) for x in (values, codes, scales)]
    for _ in range(10):
        array.quantize_(values, codes, scales, map=1, block=128)
        array.dequantize_(codes, scales, values, map=1, block=128)
    assert [sys.getrefcount(x) for x in (values, codes, scales)] == before
