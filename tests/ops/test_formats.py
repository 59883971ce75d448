"""How parameters are stored: stochastic rounding to the bit, Kahan pairs and master copies over many steps."""

from __future__ import annotations

import pytest
import torch

from momentum.enums import Residual
from momentum.reference.formats import stochastic, words
from ops.call import make_call
from ops.cases import BF16, FP16, FP32, TensorCase
from rules import RULES, Variant, first
from tolerances import bit_equal

SGD = RULES["sgd"]


def exact_step(dtype: torch.dtype, numel: int, device: str, **options):
    """Return a call of SGD that makes no rounding before the parameter is stored.

    Parameters are k / 64 in [1, 2), updates j / 2^16 below 1 / 16, so the sum needs 17 bits of float32's 24.
    """
    call = make_call(SGD, Variant(), [TensorCase((numel,), dtype, FP32)], device=device, lr=[2.0**-8], **options)
    generator = torch.Generator().manual_seed(5)
    call.lists["params"][0].copy_(1 + torch.randint(64, (numel,), generator=generator) / 64)
    call.lists["grads"][0].copy_(torch.randint(-(2**12), 2**12, (numel,), generator=generator) / 256)
    return call


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, -1])
def test_stochastic_rounding_is_the_published_generator(backend, dtype, seed):
    """Exactly the bits of the reference: seed, step and element key the word, whatever the list around the tensor."""
    numel = 5003
    call = exact_step(dtype, numel, backend.device, rounding=1, seeds=[seed])
    for step in range(1, 4):
        value = call.lists["params"][0].cpu().float() - 2.0**-8 * call.lists["grads"][0].cpu()
        call.run(backend)
        expected = stochastic(value, dtype, words(seed % 2**64, step, torch.arange(numel)))
        assert bit_equal(call.lists["params"][0].cpu(), expected)


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("fraction", [0.5, 0.125, 0.875, 1 / 4096])
def test_stochastic_rounding_is_unbiased(backend, dtype, fraction):
    """Each element rounds up with the probability of its fraction: the count is within six deviations of binomial."""
    numel = 2**16
    call = exact_step(dtype, numel, backend.device, rounding=1, seeds=[77])
    spacing = 2.0**-7 if dtype == BF16 else 2.0**-10
    call.lists["params"][0].fill_(1.25)
    call.lists["grads"][0].fill_(-fraction * spacing * 2.0**8)
    call.run(backend)
    up = int((call.lists["params"][0] == 1.25 + spacing).sum())
    assert up + int((call.lists["params"][0] == 1.25).sum()) == numel
    assert abs(up - numel * fraction) <= 6 * (numel * fraction * (1 - fraction)) ** 0.5


def test_rounding_leaves_wide_parameters_alone(backend):
    """There is nothing to round for float32 and float64: stochastic and nearest give the same bits."""
    cases = [TensorCase((300,)), TensorCase((300,), torch.float64, torch.float64)]
    nearest = make_call(SGD, Variant(), cases, device=backend.device)
    random = nearest.clone()
    random.options |= {"rounding": 1, "seeds": [3]}
    nearest.run(backend)
    random.run(backend)
    assert all(map(bit_equal, nearest.lists["params"], random.lists["params"]))


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_kahan_keeps_small_updates(backend, dtype):
    """300 updates of 2^-14 each: nearest rounding loses them all, the pair keeps their exact sum."""
    numel, steps, update = 19, 300, 2.0**-14
    case = [TensorCase((numel,), dtype, FP32)]
    for kind in (0, Residual.KAHAN):
        call = make_call(SGD, Variant(), case, device=backend.device, lr=[update], residual=kind)
        call.lists["params"][0].fill_(1.0)
        call.lists["grads"][0].fill_(-1.0)
        if kind == Residual.KAHAN:
            call.lists["residuals"][0].zero_()
        for _ in range(steps):
            call.run(backend)
        value = call.lists["params"][0].double()
        if kind == Residual.KAHAN:
            value = value + call.lists["residuals"][0].double()
        assert (value == (1.0 + steps * update if kind == Residual.KAHAN else 1.0)).all()


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_master_is_the_float32_run(backend, dtype):
    """With a master copy the trajectory is that of a float32 parameter, bit for bit, and the parameter its rounding."""
    adam = RULES["adam"]
    variant = first(adam)
    narrow = make_call(adam, variant, [TensorCase((1003,), dtype)], device=backend.device, residual=Residual.MASTER)
    wide = make_call(adam, variant, [TensorCase((1003,))], device=backend.device, residual=0)
    for name in ("grads", "exp_avgs", "exp_avg_sqs"):
        wide.lists[name][0].copy_(narrow.lists[name][0])
    wide.lists["params"][0].copy_(narrow.lists["residuals"][0])
    for _ in range(3):
        narrow.run(backend)
        wide.run(backend)
        assert bit_equal(narrow.lists["residuals"][0], wide.lists["params"][0])
        assert bit_equal(narrow.lists["params"][0], wide.lists["params"][0].to(dtype))
