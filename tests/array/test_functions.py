"""Functions that quantise arrays into new ones, and `momentum.array` where there is no torch."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import momentum
from arrays import bits
from momentum import array, quant
from momentum.array import CodeFormat
from momentum.enums import CodeMap
from momentum.quant import StateFormat


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["int4", "int8", "fp8", "linear4", "unsigned_dynamic8", CodeMap.LINEAR8, 2])
def test_functions(name, dtype):
    """The same as `momentum.quant`, whatever the strides; the input stays as it is."""
    values = np.abs(np.random.default_rng(0).normal(size=(33, 20, 3))).astype(dtype).transpose(2, 1, 0)
    kept = values.copy()
    quantized = array.quantize(values, name, scale_dtype=dtype)
    assert np.array_equal(values, kept)
    chosen = quant.FORMATS[name][0] if name in quant.FORMATS else StateFormat(name)
    expected = quant.quantize(torch.from_numpy(values), StateFormat(chosen.map, scale_dtype=torch.from_numpy(kept).dtype))
    assert bits(quantized.codes) == bits(expected.codes)
    assert bits(quantized.scales) == bits(expected.scales)
    assert quantized.format == CodeFormat(chosen.map)
    assert quantized.shape == values.shape
    assert quantized.nbytes == expected.nbytes
    back = quantized.dequantize(dtype)
    assert (back.dtype, back.shape, back.flags.c_contiguous) == (dtype, values.shape, True)
    assert bits(back) == bits(expected.dequantize(torch.from_numpy(kept).dtype))
    assert bits(array.dequantize(quantized.codes, quantized.scales, name, values.shape)) == bits(expected.dequantize())


def test_functions_take_every_property_of_a_format():
    values = np.random.default_rng(0).normal(size=(70, 130)).astype(np.float32)
    ours = array.quantize(values, CodeFormat("linear8", 64, "stochastic", "grid"), seed=5, step=6)
    theirs = quant.quantize(
        torch.from_numpy(values), StateFormat("linear8", 64, torch.float32, "stochastic", "grid"), seed=5, step=6
    )
    assert bits(ours.codes) == bits(theirs.codes)
    assert bits(ours.scales) == bits(theirs.scales)
    assert bits(ours.dequantize()) == bits(theirs.dequantize())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (4, 0), (0, 0), (1, 1, 1)])
def test_functions_of_nearly_nothing(shape):
    back = array.quantize(np.full(shape, 3.0, np.float32), "int8").dequantize()
    assert back.shape == shape
    assert (back == 3.0).all()


def test_subclasses_are_arrays(tmp_path):
    values = np.memmap(tmp_path / "values", np.float32, "w+", shape=(300,))
    values[:] = 2.0
    quantized = array.quantize(values, "int4")
    assert type(quantized.codes) is np.ndarray
    assert (quantized.dequantize() == 2.0).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], "int4"), TypeError, "expected a NumPy or CuPy array, not list"),
        (
            (torch.ones(3), "int4"),
            TypeError,
            "expected a NumPy or CuPy array, not Tensor; quantize_ and dequantize_ take others",
        ),
        (
            (np.ones(3, np.float32), "int2"),
            ValueError,
            "format must be a CodeFormat, one of 'int4', 'int8', 'fp8', or a map; map",
        ),
        ((np.ones(3, np.float32), 0), ValueError, "map must be one of dynamic4, .*float8, got 0"),
        ((np.ones(3), "int4"), ValueError, "input: expected float32, bfloat16 or float16, got float64"),
    ],
)
def test_functions_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        array.quantize(*arguments)


def test_functions_refuse_dtypes_and_sizes():
    with pytest.raises(ValueError, match="scale_dtype must be float32 or float16, got 'float64'"):
        array.quantize(np.ones(3, np.float32), "int4", scale_dtype="float64")
    quantized = array.quantize(np.ones(300, np.float32), "int8")
    with pytest.raises(ValueError, match="dtype must be float32 or float16, got 'bfloat16'"):
        quantized.dequantize("bfloat16")
    with pytest.raises(ValueError, match="codes: expected codes, uint8 with 301 elements, got uint8 with 300"):
        array.dequantize(quantized.codes, quantized.scales, quantized.format, (301,))


def test_cupy_is_asked_for_its_device_and_stream(monkeypatch):
    """By a stand-in whose arrays lie on the CPU, where its stream is then refused."""
    entered = []

    class Device:
        def __enter__(self):
            entered.append(self)

        def __exit__(self, *_):
            entered.append(None)

    class Lookalike(np.ndarray):
        device = Device()

    Lookalike.__module__, Lookalike.__name__ = "cupy._core.core", "ndarray"

    def current_stream():
        assert entered[-1] is Lookalike.device
        return SimpleNamespace(ptr=7)

    cuda = SimpleNamespace(get_current_stream=current_stream)
    library = SimpleNamespace(__name__="cupy", empty=np.empty, ascontiguousarray=np.ascontiguousarray, cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", library)
    for run in (
        lambda: array.quantize(np.ones(3, np.float32).view(Lookalike), "int8"),
        lambda: array.dequantize(np.zeros(3, np.uint8).view(Lookalike), np.ones(1, np.float32), "int8", (3,)),
    ):
        entered.clear()
        with pytest.raises(ValueError, match="stream: given, but the arrays are on the CPU"):
            run()
        assert entered == [Lookalike.device, None]


def test_same_bits_with_any_number_of_threads():
    values = np.random.default_rng(1).normal(size=300_001).astype(np.float32)
    results = []
    try:
        for count in (1, 2, 7):
            array.set_num_threads(count)
            quantized = array.quantize(values, CodeFormat("dynamic8", rounding="stochastic"))
            results.append([bits(x) for x in (quantized.codes, quantized.scales, quantized.dequantize())])
    finally:
        array.set_num_threads(0)
    assert results[0] == results[1] == results[2]


WITHOUT_TORCH = """
import sys
import numpy as np
from momentum import array
values = np.linspace(-1, 1, 300, dtype=np.float32)
print(float(abs(array.quantize(values, "int8").dequantize() - values).max()) < 0.02)
state, codes, scales = np.zeros(300, np.float32), np.zeros(300, np.uint8) + 127, np.zeros(2, np.float32)
params, steps = [np.ones(300, np.float32)], np.zeros(2, np.float32)
formats = [5, 256, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
array.adam_(params, [values], [codes], [state], scales=[scales], state_formats=formats, steps=steps, lr=0.1)
print(scales.any(), steps.tolist())
try:
    import torch
except ImportError:
    print("no torch")
"""


def test_without_torch(tmp_path):
    """In an environment that has NumPy and nothing else."""
    for package in (Path(np.__file__).parent, Path(np.__file__).parent.with_name("numpy.libs"), Path(momentum.__file__).parent):
        if package.exists():
            (tmp_path / package.name).symlink_to(package)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-S", "-c", WITHOUT_TORCH], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:3] == ["True", "True [1.0, 0.0]", "no torch"]


@pytest.mark.parametrize("module", ["momentum.array", "momentum.array.convert"])
def test_examples(module):
    result = doctest.testmod(sys.modules[module])
    assert result.attempted > 0
    assert result.failed == 0
