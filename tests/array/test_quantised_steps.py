"""Steps with quantised states on NumPy arrays: bit for bit the torch ops, and refusals that write nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import backends
from arrays import as_array, assert_same_bits, bits, run_on_arrays
from momentum import array
from momentum.enums import CodeMap, Residual, Rounding
from ops.call import make_call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from ops.quantised import SIGNED, quantised_call
from rules import RULES

CPU = backends.BACKENDS["cpu"]
CASES = [
    *(TensorCase((n,), offset=n % 4) for n in (0, 1, 3, 63, 64, 65, 129, 255, 256, 257, 8193)),
    TensorCase(()),
    TensorCase((0, 4)),
    TensorCase((1, 300), BF16, BF16, (FP32, BF16, FP32)),
    TensorCase((129, 65), offset=1),
    TensorCase((5, 3, 4), FP16, FP16, (FP32, FP16, FP32)),
    TensorCase((70, 67), BF16, FP32, (BF16, FP32, FP32)),
    TensorCase((33, 9), FP64, FP64, (FP64,) * 3, FP64),
]
OPTIONS = {
    "plain": {"lr": [0.01]},
    "stochastic": {"lr": [0.01], "rounding": Rounding.STOCHASTIC, "seeds": list(range(-3, len(CASES) - 3)), "ema": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", SIGNED)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bitwise_equal_to_the_torch_op(rule, kind, options):
    """Every format, with some tensors of each list not quantised; float64 parameters never are."""
    options = options | ({"ema_decay": 0.9} if "ema" in options else {})
    for variant in rule.variants.values():
        ours, formats = quantised_call(rule, variant, kind, CASES, **options)
        theirs = ours.clone()
        before = [bits(t) for t in ours.tensors().values()]
        for _ in range(2):
            run_on_arrays(ours)
            theirs.run(CPU)
            assert_same_bits(ours, theirs)
        assert [bits(t) for t in ours.tensors().values()] != before
        assert not formats or any(t.dtype == torch.uint8 for name in formats for t in ours.lists[name])


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("kind", [None, "int4"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_low_bits(rule, kind, rounding):
    """The int8 residual of bfloat16 parameters, an empty one for the others."""
    options = {"lr": [0.01], "residual": Residual.LOW_BITS, "rounding": rounding, "seeds": [7]}
    variant = next(iter(rule.variants.values()))
    if kind is None:
        ours = make_call(rule, variant, CASES, **options)
    else:
        ours, _ = quantised_call(rule, variant, kind, CASES, **options)
    theirs = ours.clone()
    assert any(t.dtype == torch.int8 and t.numel() for t in ours.lists["residuals"])
    for _ in range(2):
        run_on_arrays(ours)
        theirs.run(CPU)
        assert_same_bits(ours, theirs)


class Call:
    """Arguments of one ordinary call with quantised first moments of two tensors and second moments of one."""

    def __init__(self) -> None:
        self.lists = {
            "params": [np.ones(300, np.float32), np.ones((5, 3), np.float32)],
            "grads": [np.ones(300, np.float32), np.ones((5, 3), np.float32)],
            "exp_avgs": [np.zeros(150, np.uint8), np.zeros(8, np.uint8)],
            "exp_avg_sqs": [np.zeros(300, np.uint8), np.zeros((5, 3), np.float32)],
            "scales": [np.ones(3, np.float32), np.ones(1, np.float32), np.ones(2, np.float16), np.ones(0, np.float32)],
            "residuals": [],
        }
        self.options = {
            "lr": 0.1,
            "state_formats": [CodeMap.DYNAMIC4, 128, 0, 0, CodeMap.UNSIGNED_DYNAMIC8, 256, 0, 0, 0, 0, 0, 0],
        }
        self.steps = np.zeros(3, np.float32)

    def run(self, rule: str = "adam"):
        getattr(array, f"{rule}_")(**self.lists, steps=self.steps, **self.options)

    def written(self) -> list[bytes]:
        return [bits(x) for arrays in self.lists.values() for x in arrays] + [bits(self.steps)]

    def change(self, place: str, value) -> None:
        name, _, index = place.rstrip("]").partition("[")
        if index:
            (self.options if name in self.options else self.lists)[name][int(index)] = value
        else:
            (self.lists if name in self.lists else self.options)[name] = value


def test_the_call_that_is_spoiled_below_runs():
    call = Call()
    call.run()
    assert call.steps.tolist() == [1, 1, 0]
    assert call.lists["scales"][0].tolist() != [1, 1, 1]


WIDE = [np.ones(300), np.ones((5, 3))]
READ_ONLY = np.zeros(150, np.uint8)
READ_ONLY.flags.writeable = False
SHARED = np.zeros(1200, np.uint8)
REFUSED = {
    "formats_length": (
        {"state_formats": [1, 128, 0, 0]},
        "state_formats: expected no integers or 12, four for each state, got 4",
    ),
    "formats_none": ({"state_formats": ()}, "scales: expected 0 arrays.*got 4"),
    "formats_text": ({"state_formats": "int4"}, "state_formats: expected a list of integers"),
    "formats_float": ({"state_formats[1]": 128.0}, r"state_formats\[1\]: expected an integer, got 128.0"),
    "map": ({"state_formats[0]": 9}, r"state_formats\[0\]: expected a number in \[0, 8\], got 9"),
    "map_negative": ({"state_formats[4]": -1}, r"state_formats\[4\]: expected a number in \[0, 8\], got -1"),
    "map_other": ({"state_formats[0]": 5}, r"exp_avgs\[0\]: expected codes, uint8 with 300 elements, got uint8 with 150"),
    "map_none": ({"state_formats[0]": 0}, "scales: expected 2 arrays, one for each of params in each quantised state, got 4"),
    "block": ({"state_formats[5]": 32}, r"state_formats\[5\]: expected a block of 64, 128 or 256 elements, got 32"),
    "rounding": ({"state_formats[2]": 2}, r"state_formats\[2\]: expected a number in \[0, 1\], got 2"),
    "scaling": ({"state_formats[7]": 3}, r"state_formats\[7\]: expected a number in \[0, 2\], got 3"),
    "scaling_dtype": ({"state_formats[7]": 1}, r"scales\[2\]: expected float32, as for all scales of rows.*got float16"),
    "scaling_count": ({"state_formats[3]": 1}, r"scales\[1\]: expected float32 with 8 elements, got float32 with 1"),
    "codes_short": (
        {"exp_avgs[0]": np.zeros(149, np.uint8)},
        r"exp_avgs\[0\]: expected codes.*150 elements, got uint8 with 149",
    ),
    "codes_long": ({"exp_avgs[1]": np.zeros(15, np.uint8)}, r"exp_avgs\[1\]: expected codes.*8 elements"),
    "codes_int8": ({"exp_avgs[0]": np.zeros(150, np.int8)}, r"exp_avgs\[0\]: expected float32.*got int8"),
    "codes_strided": ({"exp_avgs[0]": np.zeros(300, np.uint8)[::2]}, r"exp_avgs\[0\]: expected a C-contiguous array"),
    "codes_read_only": ({"exp_avgs[0]": READ_ONLY}, r"exp_avgs\[0\]: is written, but the array is read-only"),
    "codes_shared": ({"exp_avgs[0]": SHARED[:150], "exp_avg_sqs[0]": SHARED[149:449]}, "exp_avg.* share memory"),
    "scales_shared": ({"exp_avgs[0]": SHARED[:150], "scales[0]": SHARED[148:160].view(np.float32)}, "share memory"),
    "scales_few": ({"scales": [np.ones(3, np.float32)]}, "scales: expected 4 arrays, .*got 1"),
    "scales_short": (
        {"scales[0]": np.ones(2, np.float32)},
        r"scales\[0\]: expected float32 with 3 elements, got float32 with 2",
    ),
    "scales_double": ({"scales[0]": np.ones(3)}, r"scales\[0\]: expected float32, bfloat16 or float16, got float64"),
    "scales_mixed": ({"scales[1]": np.ones(1, np.float16)}, r"scales\[1\]: expected float32 with 1 elements, got float16"),
    "scales_too_many": (
        {"scales[3]": np.ones(1, np.float16)},
        r"scales\[3\]: expected an empty array, as exp_avg_sqs\[1\] is not quantised, got shape \(1,\)",
    ),
    "no_format": (
        {"state_formats": [1, 128, *[0] * 10], "scales": [np.ones(3, np.float32), np.ones(1, np.float32)]},
        r"exp_avg_sqs\[0\]: expected a floating point dtype, as state_formats names no format for this state, got uint8",
    ),
    "float64": (
        {"params": WIDE, "grads": WIDE},
        r"exp_avgs\[0\]: expected float64 as params\[0\], whose states are not quantised",
    ),
    "low_bits_dtype": (
        {
            "residual": 3,
            "params": [torch.ones(300, dtype=BF16), np.ones((5, 3), np.float32)],
            "residuals": [np.zeros(300, np.uint8), np.zeros(0, np.int8)],
        },
        r"residuals\[0\]: expected int8, got uint8",
    ),
    "low_bits_shape": (
        {
            "residual": 3,
            "params": [torch.ones(300, dtype=BF16), np.ones((5, 3), np.float32)],
            "residuals": [np.zeros(299, np.int8), np.zeros(0, np.int8)],
        },
        r"residuals\[0\]: expected shape \(300,\) as params\[0\], got \(299,\)",
    ),
    "low_bits_of_float32": (
        {"residual": 3, "residuals": [np.zeros(300, np.int8), np.zeros((5, 3), np.int8)]},
        r"residuals\[0\]: only bfloat16 params are extended by eight bits, got float32",
    ),
    "residual": ({"residual": 4}, r"residual: expected a number in \[0, 3\], got 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    """The message names the argument; nothing has been written."""
    changes, message = REFUSED[case]
    call = Call()
    for place, value in changes.items():
        call.change(place, value)
    before = call.written()
    with pytest.raises(ValueError, match=rf"momentum\.array\.adam_: .*(?:{message})"):
        call.run()
    assert call.written() == before


def test_format_of_a_state_that_is_not_given():
    params = [np.ones(300, np.float32)]
    options = {"state_formats": [1, 128, 0, 0], "scales": [np.ones(3, np.float32)]}
    with pytest.raises(ValueError, match=r"state_formats\[0\]: expected 0, as \w+ is not given, got 1"):
        array.sgd_(params, [np.ones(300, np.float32)], steps=np.zeros(2, np.float32), lr=0.1, **options)
    assert (params[0] == 1).all()


def test_codes_of_an_optional_state_are_not_left_out_when_too_short():
    (name,) = RULES["sgd"].states
    lists = {"params": [np.ones(300, np.float32)], "grads": [np.ones(300, np.float32)], name: [np.zeros(0, np.uint8)]}
    options = {"state_formats": [1, 128, 0, 0], "scales": [np.ones(3, np.float32)]}
    with pytest.raises(ValueError, match=rf"{name}\[0\]: expected codes, uint8 with 150 elements, got uint8 with 0"):
        array.sgd_(**lists, steps=np.zeros(2, np.float32), lr=0.1, **options)


def test_quantised_states_of_no_params():
    numbers = [1, 128, 0, 0, 5, 256, 0, 0, 0, 0, 0, 0]
    array.adam_([], [], [], [], steps=np.zeros(1, np.float32), lr=0.1, state_formats=numbers)


def test_numbers_may_be_an_array():
    ours, theirs = Call(), Call()
    ours.options["state_formats"] = np.array(ours.options["state_formats"])
    ours.run()
    theirs.run()
    assert ours.written() == theirs.written()


def test_same_bits_with_any_number_of_threads():
    rule = RULES["adam"]
    cases = [TensorCase((200_001,), FP32), TensorCase((301, 257), BF16)]
    results = []
    try:
        for count in (1, 2, 7):
            array.set_num_threads(count)
            call, _ = quantised_call(rule, next(iter(rule.variants.values())), "grid", cases, which=lambda *_: True, lr=[0.01])
            run_on_arrays(call)
            results.append([bits(t) for t in as_array(list(call.tensors().values()))])
    finally:
        array.set_num_threads(0)
    assert results[0] == results[1] == results[2]
