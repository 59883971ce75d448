"""Calls with quantised states: how many kernels they launch, what torch's tracers make of them, and what is refused."""

from __future__ import annotations

import pytest
import torch

from backends import BACKENDS
from momentum.enums import Cautious, Residual
from ops import emulator
from ops.call import Call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from ops.quantised import mixed_cases, quantised_call
from ops.test_compile import stepper, through
from ops.test_determinism import assert_same
from ops.test_errors import alias, assert_refused, cast, drop, option, replace
from rules import RULES, first

CPU, EMULATED = BACKENDS["cpu"], BACKENDS["emulated"]
needs_emulator = pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))


@needs_emulator
@pytest.mark.parametrize("rule", RULES)
def test_mixed_formats_share_launches(rule):
    """One launch for the map and one for each reduction, whatever sizes, dtypes and formats the list mixes."""
    cases = [case for case in mixed_cases(lines=True) if case.param != FP64]
    call, _ = quantised_call(RULES[rule], list(RULES[rule].variants.values())[-1], "int4", cases)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [1 + RULES[rule].passes]


@needs_emulator
@pytest.mark.parametrize("kind", ["rank_one", "grid"])
@pytest.mark.parametrize("rule", RULES)
def test_scales_of_rows_and_columns_are_one_more(rule, kind):
    """Their maxima must be known before the first code is stored: one launch more, for the whole list and all states."""
    cases = [case for case in mixed_cases(lines=True) if case.param != FP64]
    call, _ = quantised_call(RULES[rule], list(RULES[rule].variants.values())[-1], kind, cases)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [2 + RULES[rule].passes]


@needs_emulator
def test_lists_of_thousands():
    """2000 quantised tensors are one launch once their table is on the device; cautious rescaling is one more."""
    for cautious in (Cautious.OFF, Cautious.RESCALED):
        cases = [TensorCase((5 + i % 300,), (FP32, BF16)[i % 2]) for i in range(2000)]
        call, _ = quantised_call(RULES["adam"], first(RULES["adam"]), "int4", cases, cautious=cautious)
        call.run(EMULATED)
        with emulator.launches() as counted:
            call.run(EMULATED)
        assert counted == [1 + (cautious == Cautious.RESCALED)]


@needs_emulator
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_any_schedule_order(rule, order):
    forward, _ = quantised_call(RULES[rule], list(RULES[rule].variants.values())[-1], "stochastic")
    other = forward.clone()
    forward.run(EMULATED)
    with emulator.order(order, seed=3):
        other.run(EMULATED)
    assert_same(forward, other)


TRACED = [TensorCase((33, 5)), TensorCase((700,), BF16, BF16), TensorCase(())]


def traced_call(rule: str, kind: str = "int4") -> Call:
    call, _ = quantised_call(RULES[rule], list(RULES[rule].variants.values())[-1], kind, TRACED, which=lambda name, i: True)
    # The function that is traced takes tensors alone.
    call.options |= call.variant.hypers
    return call


def run_step(call: Call):
    run = stepper(call)
    return lambda lists, steps, totals: run(lists, steps, totals, scales=lists["scales"])


@pytest.mark.parametrize("kind", ["int4", "stochastic"])
@pytest.mark.parametrize("rule", RULES)
def test_opcheck(rule, kind):
    call = traced_call(rule, kind)
    op = CPU.op(rule + "_")
    names = [argument.name for argument in op._schema.arguments if not argument.kwarg_only]
    torch.library.opcheck(op, tuple(getattr(call, name, call.lists.get(name, [])) for name in names), call.options)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("rule", RULES)
def test_compile(rule, compiler):
    plain = traced_call(rule)
    traced = plain.clone()
    through(plain, run_step(plain))
    torch._dynamo.reset()
    through(traced, torch.compile(run_step(traced), backend=compiler, fullgraph=True))
    assert_same(plain, traced)
    assert torch.equal(plain.steps, traced.steps)


@pytest.mark.parametrize("rule", ["adam", "scale"])
def test_export(rule):
    plain = traced_call(rule)
    exported = plain.clone()
    run = run_step(exported)

    class Step(torch.nn.Module):
        def forward(self, lists, steps, totals):
            run(lists, steps, totals)
            return steps.clone()

    arguments = (exported.lists, exported.steps, exported.totals)
    with torch.no_grad():
        program = torch.export.export(Step(), arguments)
        program.module()(*arguments)
    through(plain, run_step(plain))
    assert_same(plain, exported)


def test_version_counters():
    call = traced_call("adam")
    before = [t._version for name in ("exp_avgs", "exp_avg_sqs", "scales") for t in call.lists[name]]
    through(call, run_step(call))
    after = [t._version for name in ("exp_avgs", "exp_avg_sqs", "scales") for t in call.lists[name]]
    assert all(new > old for old, new in zip(before, after, strict=True))


CASES = [
    TensorCase((6, 50)),
    TensorCase((300,), BF16, BF16),
    TensorCase((5,), FP16),
    TensorCase((3, 1), FP64, FP64, (FP64,) * 3),
]


def adam(device: str, **options) -> Call:
    """Return a good call: codes in blocks of 128, but for the float64 parameter. Scales 0-3 belong to exp_avgs."""
    options = {"residual": Residual.LOW_BITS, "ema": True, "ema_decay": 0.9, **options}
    variant = RULES["adam"].variants["amsgrad"]
    return quantised_call(RULES["adam"], variant, "int4", CASES, which=lambda name, i: True, device=device, **options)[0]


def formats(place: int, value: int):
    def apply(call: Call) -> None:
        call.options["state_formats"][place] = value

    return apply


def no_formats(call: Call) -> None:
    call.options["state_formats"] = []
    call.lists["scales"] = []


def without_amsgrad(call: Call) -> None:
    call.lists["max_exp_avg_sqs"] = []


def residual_of_fp16(call: Call) -> None:
    call.lists["residuals"][2] = torch.zeros(5, dtype=torch.int8, device=call.steps.device)


def quantise_float64(call: Call) -> None:
    call.lists["exp_avgs"][3] = torch.zeros(2, dtype=torch.uint8, device=call.steps.device)
    call.lists["scales"][3] = torch.zeros(1, device=call.steps.device)


def scales_within_codes(call: Call) -> None:
    memory = torch.zeros(160, dtype=torch.uint8, device=call.steps.device)
    call.lists["exp_avgs"][0], call.lists["scales"][0] = memory[:150], memory[140:152].view(torch.float32)


REFUSED = {
    "codes_short": (
        replace("exp_avgs", 0, lambda t: t[:149]),
        r"exp_avgs\[0\] has shape \[149\], expected 150 contiguous bytes",
    ),
    "codes_long": (replace("exp_avgs", 1, lambda t: torch.cat([t, t])), r"exp_avgs\[1\] has shape \[300\], expected 150"),
    "codes_strided": (
        replace("exp_avgs", 0, lambda t: t.repeat_interleave(2)[::2]),
        r"exp_avgs\[0\] has shape \[150\], expected 150 c",
    ),
    "codes_int8": (replace("exp_avg_sqs", 1, lambda t: t.view(torch.int8)), r"exp_avg_sqs\[1\]"),
    "codes_int64": (replace("max_exp_avg_sqs", 2, cast(torch.int64)), r"max_exp_avg_sqs\[2\]"),
    "scales_short": (replace("scales", 0, lambda t: t[:2]), r"scales\[0\] has shape \[2\], expected 3"),
    "scales_long": (replace("scales", 5, lambda t: torch.cat([t, t])), r"scales\[5\] has shape \[6\], expected 3"),
    "scales_empty": (replace("scales", 8, lambda t: t[:0]), r"scales\[8\] has shape \[0\], expected 3"),
    "scales_strided": (
        replace("scales", 1, lambda t: t.repeat_interleave(2)[::2]),
        r"scales\[1\] has shape \[3\], expected 3 c",
    ),
    "scales_double": (
        replace("scales", 0, cast(FP64)),
        r"scales\[0\] has dtype float64, expected float32, bfloat16 or float16",
    ),
    "scales_int": (replace("scales", 4, cast(torch.int32)), r"scales\[4\] has dtype int32"),
    "scales_mixed": (replace("scales", 2, cast(BF16)), r"scales\[2\] has dtype bfloat16, expected float32"),
    "scales_of_plain": (
        replace("scales", 3, lambda t: t.new_zeros(1)),
        r"scales\[3\] has shape \[1\], expected an empty tensor",
    ),
    "scales_list_short": (drop("scales"), r"scales has length 11, expected 12"),
    "scales_list_missing": (lambda call: call.lists.pop("scales"), r"scales has length 0, expected 12"),
    "formats_missing": (
        option(state_formats=[]),
        r"scales has length 12, expected 0 \(state_formats names no quantised state\)",
    ),
    "formats_missing_too": (
        no_formats,
        r"exp_avgs\[0\] has dtype uint8, expected a floating point dtype: state_formats names no",
    ),
    "formats_short": (option(state_formats=[1, 128, 0, 0]), r"state_formats has length 4, expected 12"),
    "formats_of_absent_state": (without_amsgrad, r"state_formats\[8\] is 4, expected 0: max_exp_avg_sqs is not given"),
    "map_9": (formats(0, 9), r"state_formats\[0\] is 9, expected a number in \[0, 8\]"),
    "map_negative": (formats(4, -1), r"state_formats\[4\] is -1"),
    "map_of_other_size": (formats(0, 5), r"exp_avgs\[0\] has shape \[150\], expected 300"),
    "block_0": (formats(1, 0), r"state_formats\[1\] is 0, expected a block of 64, 128 or 256"),
    "block_100": (formats(5, 100), r"state_formats\[5\] is 100, expected a block"),
    "block_other": (formats(1, 64), r"scales\[0\] has shape \[3\], expected 5"),
    "rounding_2": (formats(2, 2), r"state_formats\[2\] is 2"),
    "scaling_3": (formats(7, 3), r"state_formats\[7\] is 3"),
    "float64_param": (quantise_float64, r"exp_avgs\[3\] has dtype uint8, expected float64"),
    "low_bits_of_float16": (
        residual_of_fp16,
        r"residuals\[2\] is given for a param of dtype float16, expected an empty tensor",
    ),
    "low_bits_uint8": (
        replace("residuals", 1, lambda t: t.view(torch.uint8)),
        r"residuals\[1\] has dtype uint8, expected int8",
    ),
    "low_bits_shape": (replace("residuals", 1, lambda t: t[:299]), r"residuals\[1\] has shape \[299\], expected \[300\]"),
    "codes_twice": (alias("exp_avgs", 0, "exp_avg_sqs", 0), r"exp_avgs?\w*\[0\].*exp_avg\w*\[0\]"),
    "scales_twice": (alias("scales", 0, "scales", 1), r"scales\[[01]\].*scales\[[01]\]"),
    "scales_in_codes": (scales_within_codes, r"exp_avgs\[0\].*scales\[0\]|scales\[0\].*exp_avgs\[0\]"),
    "meta_codes": (replace("exp_avgs", 0, lambda t: t.to("meta")), r"[Mm]eta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(backend, case):
    change, pattern = REFUSED[case]
    call = adam(backend.device)
    change(call)
    if case == "meta_codes":
        with pytest.raises((RuntimeError, NotImplementedError), match=pattern):
            call.run(backend)
        return
    assert_refused(call, backend, pattern)


def test_good_call_is_accepted(backend):
    adam(backend.device).run(backend)


def test_other_device(backend):
    if backend.device != "cuda":
        pytest.skip("needs two devices")
    for name, index in (("exp_avgs", 0), ("scales", 5), ("residuals", 1)):
        call = adam("cuda")
        call.lists[name][index] = call.lists[name][index].cpu()
        assert_refused(call, backend, rf"{name}\[{index}\] is on cpu, expected cuda:0")
