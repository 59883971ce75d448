"""Steps by moments in the usual codes, which the CPU takes in loops of their own (csrc/cpu/moments.isa.cpp): what surrounds the
rule, numbers at the ends of their ranges, and tensors beside each other of which only some go that way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from momentum.enums import DecayMode
from ops.cases import BF16, FP16, FP32, TensorCase
from ops.quantised import quantised_call, scales_of
from ops.test_blocks import everywhere, run_and_check
from rules import RULES, first
from tolerances import bit_equal

KINDS = pytest.mark.parametrize("kind", ["int4", "int8"])
DTYPES = pytest.mark.parametrize("dtype", [FP32, BF16])
SIZES = (1536, 1000)


def moments_call(rule, dtype, kind, backend, **options):
    cases = [TensorCase((n,), dtype, dtype) for n in SIZES]
    return quantised_call(RULES[rule], first(RULES[rule]), kind, cases, which=everywhere, device=backend.device, **options)


FRAMES = {
    "l2 is no such frame": {"decay": DecayMode.L2, "weight_decay": [0.1]},
    "proximal": {"decay": DecayMode.PROX, "weight_decay": [0.1]},
    "after": {"decay": DecayMode.DECOUPLED_AFTER, "weight_decay": [0.1]},
    "by lr": {"decay": DecayMode.LR_DECOUPLED, "weight_decay": [0.1], "max_lr": 0.5},
    "maximize": {"maximize": True},
    "scaled": {"grad_scale": torch.tensor(64.0), "found_inf": torch.tensor(0.0)},
    "scaled and negative": {"grad_scale": torch.tensor(0.125), "maximize": True},
    "so far that gains are no usual numbers": {"grad_scale": torch.tensor(2.0**30)},
}


@KINDS
@DTYPES
@pytest.mark.parametrize("rule", ["adam", "stable_spam"])
@pytest.mark.parametrize("frame", FRAMES)
def test_frames(backend, frame, rule, dtype, kind):
    call, formats = moments_call(rule, dtype, kind, backend, **FRAMES[frame])
    run_and_check(backend, call, formats)


@KINDS
@DTYPES
@pytest.mark.parametrize("beta", ["beta1", "beta2"])
def test_nothing_is_remembered(backend, beta, dtype, kind):
    call, formats = moments_call("adam", dtype, kind, backend)
    call.variant = replace(call.variant, hypers={**call.variant.hypers, beta: 0.0})
    run_and_check(backend, call, formats)


@KINDS
@DTYPES
@pytest.mark.parametrize("lr", [0.0, 1e-44])
def test_steps_of_nothing(backend, lr, dtype, kind):
    """Parameters stay, also where second moments are zero; moments go on."""
    call, formats = moments_call("adam", dtype, kind, backend, lr=[lr])
    call.lists["grads"][0][:256] = 0.0
    for name, chosen in formats.items():
        scales_of(call, formats, name, 0)[: 256 // chosen.block] = 0.0
    before = [param.clone() for param in call.lists["params"]]
    run_and_check(backend, call, formats)
    assert all(bit_equal(old, param) for old, param in zip(before, call.lists["params"], strict=True))


@KINDS
@DTYPES
def test_subnormal_parameters(backend, dtype, kind):
    """Numbers that the processor's own rounding to bfloat16 takes for zero, beside usual ones."""
    call, formats = moments_call("adam", dtype, kind, backend, decay=DecayMode.DECOUPLED, weight_decay=[10.0])
    for i, param in enumerate(call.lists["params"]):
        for begin in (0, 600):  # a whole block of each format, and the beginning of one
            end = begin + 256
            call.lists["grads"][i][begin:end] = 0.0
            call.lists["exp_avgs"][i][begin * formats["exp_avgs"].bits // 8 : end * formats["exp_avgs"].bits // 8] = (
                0x77 if kind == "int4" else 127
            )
            param[begin:end] *= 1e-39
    run_and_check(backend, call, formats)
    for param in call.lists["params"]:
        assert ((param[:256].abs() > 0) & (param[:256].abs() < 2.0**-126)).sum() > 200


@KINDS
@DTYPES
def test_infinite_gradients(backend, dtype, kind):
    """They spoil their block's scales, which shows, and the parameters that they belong to."""
    call, formats = moments_call("adam", dtype, kind, backend)
    call.lists["grads"][0][700] = torch.inf
    clean = call.lists["params"][0].clone()
    call.run(backend)
    for name, chosen in formats.items():
        assert scales_of(call, formats, name, 0).isnan().nonzero().flatten().tolist() == [700 // chosen.block]
    param = call.lists["params"][0].cpu()
    assert param.isnan().nonzero().flatten().tolist() == [700]
    assert not bit_equal(param[701:], clean.cpu()[701:])


@KINDS
def test_any_mix_of_dtypes(backend, kind):
    """Parameters and gradients that are neither both bfloat16 nor both float32, beside some that are."""
    mixes = [(FP32, BF16), (BF16, FP32), (FP16, FP16), (BF16, BF16), (FP32, FP32)]
    cases = [TensorCase((n,), p, g, offset=i % 3) for i, (p, g) in enumerate(mixes) for n in SIZES]
    call, formats = quantised_call(RULES["adam"], first(RULES["adam"]), kind, cases, which=everywhere, device=backend.device)
    run_and_check(backend, call, formats)
