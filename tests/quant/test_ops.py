"""quantize_ and dequantize_ under torch's tracers, their Python functions, and what they refuse."""

from __future__ import annotations

import pickle
import re

import pytest
import torch

from backends import BACKENDS
from momentum import quant
from momentum.quant import CodeMap, Quantized, StateFormat
from tolerances import bit_equal

CPU = BACKENDS["cpu"]


def buffers(numel=300, chosen=quant.FORMATS["int4"][0], device="cpu"):
    codes = torch.full((chosen.code_bytes(numel),), 0xA5, dtype=torch.uint8, device=device)
    return codes, torch.full((chosen.scale_count((numel,)),), -7.0, dtype=chosen.scale_dtype, device=device)


@pytest.mark.parametrize("rounding", [0, 1])
def test_opcheck(rounding):
    codes, scales = buffers()
    values = torch.randn(300)
    options = {"map": 1, "block": 128}
    torch.library.opcheck(CPU.op("quantize_"), (values, codes, scales), {**options, "rounding": rounding, "seed": 3, "step": 1})
    CPU.op("quantize_")(values, codes, scales, **options)
    torch.library.opcheck(CPU.op("dequantize_"), (codes, scales, torch.empty(300)), options)


def round_trip(values, codes, scales):
    torch.ops.momentum.quantize_(values, codes, scales, map=1, block=128)
    out = torch.empty_like(values)
    torch.ops.momentum.dequantize_(codes, scales, out, map=1, block=128)
    return out * 2


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
def test_compile(compiler):
    values = torch.randn(300)
    plain, traced = buffers(), buffers()
    expected = round_trip(values, *plain)
    torch._dynamo.reset()
    got = torch.compile(round_trip, backend=compiler, fullgraph=True)(values, *traced)
    assert bit_equal(got, expected)
    assert all(map(bit_equal, plain, traced))


def test_export():
    class Both(torch.nn.Module):
        def forward(self, values, codes, scales):
            return round_trip(values, codes, scales)

    values = torch.randn(300)
    program = torch.export.export(Both(), (values, *buffers()))
    targets = [str(node.target) for node in program.graph.nodes]
    assert any("momentum.quantize_" in t for t in targets)
    assert any("momentum.dequantize_" in t for t in targets)
    assert bit_equal(program.module()(values, *buffers()), round_trip(values, *buffers()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", quant.FORMATS)
def test_functions(name, dtype):
    """Shape, dtype and elements in the order of the shape, whatever the strides; the input stays as it is."""
    values = torch.randn(33, 20, 3).to(dtype).transpose(0, 2)
    kept = values.clone()
    quantized = quant.quantize(values, name)
    assert bit_equal(values, kept)
    assert quantized.shape == values.shape
    assert quantized.format == quant.FORMATS[name][0]
    assert quantized.nbytes == quantized.format.code_bytes(1980) + 4 * quantized.format.scale_count((1980,))
    back = quantized.dequantize(dtype)
    assert back.dtype == dtype
    assert back.shape == values.shape
    assert back.is_contiguous()
    flat = quant.quantize(values.contiguous().flatten(), name).dequantize(dtype)
    assert bit_equal(back.flatten(), flat)
    assert (back.double() - values.double()).abs().max() <= 0.12 * values.double().abs().max()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (4, 0), (0, 0), (1, 1, 1)])
def test_functions_of_nearly_nothing(shape):
    values = torch.full(shape, 3.0, requires_grad=True)
    back = quant.quantize(values, "int8").dequantize()
    assert back.shape == torch.Size(shape)
    assert (back == 3.0).all()
    assert not back.requires_grad


def test_stochastic_function_uses_seed_and_step():
    chosen = StateFormat("linear8", rounding="stochastic")
    values = torch.randn(1000)
    first = quant.quantize(values, chosen, seed=5, step=6)
    assert bit_equal(first.codes, quant.quantize(values, chosen, seed=5, step=6).codes)
    assert not bit_equal(first.codes, quant.quantize(values, chosen, seed=5, step=7).codes)


def test_formats_are_values():
    """Equal, hashable, picklable, and what they say of sizes is what the ops want."""
    chosen = StateFormat("DYNAMIC4".lower(), 64, torch.bfloat16, "stochastic")
    assert (
        chosen
        == StateFormat(CodeMap.DYNAMIC4, 64, torch.bfloat16, "stochastic")
        == StateFormat(1, 64, torch.bfloat16, "stochastic")
    )
    assert len({chosen, pickle.loads(pickle.dumps(chosen))}) == 1
    assert chosen.bytes_per_element == 0.5 + 2 / 64
    assert (chosen.code_bytes(0), chosen.code_bytes(1), chosen.code_bytes(65), chosen.scale_count((65,))) == (0, 1, 33, 2)
    assert chosen.same_storage(StateFormat("dynamic4", 64, torch.bfloat16))
    assert not chosen.same_storage(StateFormat("dynamic4", 128, torch.bfloat16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int3",), "map must be one of dynamic4, dynamic4_minus_one, .*float8, got 'int3'"),
        ((0,), "map must be one of .*, got 0"),
        ((9,), "map must be one of .*, got 9"),
        (("none",), "map must be one of"),
        (("dynamic4", 32), "block must be one of 64, 128, 256 elements, got 32"),
        (("dynamic4", True), "block must be one of"),
        (("dynamic4", 64, torch.float64), "scale_dtype must be one of .*float16, got torch.float64"),
        (("dynamic4", 64, torch.float32, "up"), "rounding must be one of nearest, stochastic, got 'up'"),
    ],
)
def test_formats_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        StateFormat(*arguments)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"format must be a StateFormat or one of 'int4', 'int8', 'fp8', got 'int2'"):
        quant.quantize(torch.ones(3), "int2")


def test_quantized_that_does_not_fit_its_shape():
    q = quant.quantize(torch.ones(300), "int8")
    with pytest.raises(RuntimeError, match=r"codes has shape \[300\], expected 301"):
        Quantized(q.codes, q.scales, q.format, torch.Size([301])).dequantize()


# What is changed in a good call, and what the message must say. The call has 300 elements in 3 blocks of 128.
OVERLAP = torch.zeros(1200, dtype=torch.uint8)
REFUSED = {
    "codes_short": ({"codes": torch.zeros(149, dtype=torch.uint8)}, r"codes has shape \[149\], expected 150"),
    "codes_long": ({"codes": torch.zeros(300, dtype=torch.uint8)}, r"codes has shape \[300\], expected 150"),
    "codes_strided": ({"codes": torch.zeros(300, dtype=torch.uint8)[::2]}, r"codes has shape \[150\], expected 150 contiguous"),
    "codes_int8": ({"codes": torch.zeros(150, dtype=torch.int8)}, r"codes has dtype int8, expected uint8"),
    "codes_float": ({"codes": torch.zeros(150)}, r"codes has dtype float32, expected uint8"),
    "scales_short": ({"scales": torch.zeros(2)}, r"scales has shape \[2\], expected 3"),
    "scales_long": ({"scales": torch.zeros(4)}, r"scales has shape \[4\], expected 3"),
    "scales_strided": ({"scales": torch.zeros(6)[::2]}, r"scales has shape \[3\], expected 3 contiguous"),
    "scales_double": ({"scales": torch.zeros(3, dtype=torch.float64)}, r"scales has dtype float64, expected float32"),
    "scales_int": ({"scales": torch.zeros(3, dtype=torch.int32)}, r"scales has dtype int32"),
    "values_double": ({"values": torch.zeros(300, dtype=torch.float64)}, r"VALUES has dtype float64"),
    "values_int": ({"values": torch.zeros(300, dtype=torch.int64)}, r"VALUES has dtype int64"),
    "values_complex": ({"values": torch.zeros(300, dtype=torch.complex64)}, r"VALUES has dtype complex64"),
    "values_strided": ({"values": torch.zeros(600)[::2]}, r"VALUES has strides \[2\], expected a contiguous tensor"),
    "values_transposed": ({"values": torch.zeros(20, 15).t()}, r"VALUES has strides"),
    "map_0": ({"map": 0}, r"map is 0, expected a number in \[1, 8\]"),
    "map_9": ({"map": 9}, r"map is 9"),
    "map_negative": ({"map": -1}, r"map is -1"),
    "block_32": ({"block": 32}, r"block is 32, expected 64, 128 or 256"),
    "block_0": ({"block": 0}, r"block is 0"),
    "block_512": ({"block": 512}, r"block is 512"),
    "block_other": ({"block": 64}, r"scales has shape \[3\], expected 5"),
    "scaling_3": ({"scaling": 3}, r"scaling is 3"),
    "scaling_other": ({"scaling": 1, "values": torch.zeros(20, 15)}, r"scales has shape \[3\], expected 35"),
    "map_other": ({"map": 5}, r"codes has shape \[150\], expected 300"),
    "codes_in_values": ({"values": OVERLAP.view(torch.float32), "codes": OVERLAP[100:250]}, r"(codes|VALUES).*(VALUES|codes)"),
    "scales_in_codes": (
        {"codes": OVERLAP[:150], "scales": OVERLAP[100:112].view(torch.float32)},
        r"scales.*codes|codes.*scales",
    ),
}


# Reading from memory that overlaps is harmless.
CALLS = [
    (op, case) for case in REFUSED for op in ("quantize_", "dequantize_") if (op, case) != ("dequantize_", "scales_in_codes")
]


@pytest.mark.parametrize(("op", "case"), CALLS)
def test_refused(backend, op, case):
    """The message names op and argument; nothing has been written."""
    changes, pattern = REFUSED[case]
    codes, scales = buffers()
    call = {"values": torch.arange(300.0), "codes": codes, "scales": scales, "map": 1, "block": 128} | changes
    call = {k: v.to(backend.device) if isinstance(v, torch.Tensor) and backend.device != "cpu" else v for k, v in call.items()}
    tensors = [
        call.pop(name) for name in (("values", "codes", "scales") if op == "quantize_" else ("codes", "scales", "values"))
    ]
    before = [t.clone() for t in tensors]
    pattern = pattern.replace("VALUES", "input" if op == "quantize_" else "output")
    with pytest.raises(RuntimeError) as caught:
        backend.op(op)(*tensors, **call)
    assert re.search(f"{backend.namespace}::{op}.*(?:{pattern})", str(caught.value)), str(caught.value)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize(("name", "value"), [("rounding", 2), ("rounding", -1), ("step", -1), ("step", 2**32)])
def test_refused_numbers(backend, name, value):
    codes, scales = buffers(device=backend.device)
    before = codes.clone()
    with pytest.raises(RuntimeError, match=rf"quantize_.*{name} is"):
        backend.op("quantize_")(torch.ones(300, device=backend.device), codes, scales, map=1, block=128, **{name: value})
    assert torch.equal(codes, before)


def test_other_devices(backend):
    if backend.device != "cuda":
        pytest.skip("needs two devices")
    codes, scales = buffers()
    with pytest.raises(RuntimeError, match="codes is on cpu, expected cuda:0"):
        backend.op("quantize_")(torch.ones(300, device="cuda"), codes, scales.cuda(), map=1, block=128)
    with pytest.raises(RuntimeError, match="scales is on cpu, expected cuda:0"):
        backend.op("quantize_")(torch.ones(300, device="cuda"), codes.cuda(), scales, map=1, block=128)


def test_threads():
    values = torch.randn(300_001)
    one = quant.quantize(values, StateFormat("dynamic8", rounding="stochastic"))
    torch.set_num_threads(3)
    try:
        three = quant.quantize(values, StateFormat("dynamic8", rounding="stochastic"))
        read = three.dequantize()
    finally:
        torch.set_num_threads(1)
    assert bit_equal(one.codes, three.codes)
    assert bit_equal(one.scales, three.scales)
    assert bit_equal(one.dequantize(), read)
