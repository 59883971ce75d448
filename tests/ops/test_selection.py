"""The k-th largest magnitude of a tensor, found exactly: counts, ties, zeros, NaN, doubles, formats of the momentum."""

from __future__ import annotations

import pytest
import torch

from ops.call import make_call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from rules import RULES, Variant

RULE = RULES["lion_top_k"]
SIZES = [1, 2, 31, 1000, 40_000]


def chosen(backend, grads, *, exp_avgs=None, states=(FP32,), **hypers):
    """Return, for each gradient, the directions of one step: momenta are 0 unless given."""
    cases = [TensorCase(tuple(g.shape), g.dtype if g.dtype == FP64 else FP32, g.dtype, states) for g in grads]
    call = make_call(RULE, Variant(hypers), cases, device=backend.device, lr=[1.0])
    for i, grad in enumerate(grads):
        call.lists["params"][i].zero_()
        call.lists["grads"][i].copy_(grad)
        call.lists["exp_avgs"][i].zero_()
        if exp_avgs is not None:
            call.lists["exp_avgs"][i].copy_(exp_avgs[i])
    call.run(backend)
    return [-p.cpu() for p in call.lists["params"]]


def distinct(numel, dtype=FP32, seed=0):
    """Return numbers of different magnitudes over many binades, in random order and with random signs."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.logspace(-30, 30, numel, base=2.0, dtype=torch.float64)
    signs = torch.randint(0, 2, (numel,), generator=generator) * 2 - 1
    return (magnitudes * signs)[torch.randperm(numel, generator=generator)].to(dtype)


@pytest.mark.parametrize("dtype", [FP32, FP64])
@pytest.mark.parametrize("hypers", [{"count": 1}, {"count": 7}, {"density": 0.3}, {"density": 1.0}, {"density": 0.0}])
def test_exactly_the_k_largest(backend, hypers, dtype):
    grads = [distinct(n, dtype) for n in SIZES]
    for grad, direction in zip(grads, chosen(backend, grads, **hypers), strict=True):
        k = min(max(hypers.get("count", 0) or int(hypers["density"] * grad.numel()), 1), grad.numel())
        expected = torch.zeros_like(direction)
        places = grad.abs().topk(k).indices
        expected[places] = grad.sign()[places].to(expected.dtype)
        assert torch.equal(direction, expected)


@pytest.mark.parametrize("state", [FP32, BF16, FP16])
def test_the_step_finds_what_the_passes_counted(backend, state):
    """Both make beta1 m + (1 - beta1) g: with rounding in between, the k-th would now and then be lost."""
    grads = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in SIZES]
    momenta = [torch.randn(n, generator=torch.Generator().manual_seed(2 * n)).to(state) for n in SIZES]
    for beta1 in (0.9, 0.7, 0.3):
        for k in (1, 5, 31):
            for direction in chosen(backend, grads, exp_avgs=momenta, states=(state,), beta1=beta1, count=k):
                count = int(direction.count_nonzero())
                assert count == min(k, direction.numel())


def test_ties_are_chosen_together(backend):
    grad = torch.tensor([3.0, -1.0, 1.0, 0.5, -1.0, 0.0])
    (direction,) = chosen(backend, [grad], count=2)
    assert direction.tolist() == [1.0, -1.0, 1.0, 0.0, -1.0, 0.0]


def test_zero_has_no_sign(backend):
    (direction,) = chosen(backend, [torch.tensor([0.0, -2.0, -0.0])], count=3)
    assert direction.tolist() == [0.0, -1.0, 0.0]


def test_nan_counts_as_the_largest_and_stays(backend):
    grads = [torch.tensor([1.0, torch.nan, -5.0, torch.inf]), torch.tensor([torch.nan, 2.0])]
    first, second = chosen(backend, grads, count=3)
    assert first[1].isnan()
    assert first[[0, 2, 3]].tolist() == [0.0, -1.0, 1.0]
    assert second[0].isnan()
    assert second[1] == 1.0


def test_doubles_compare_as_float32(backend):
    """Two magnitudes that one float32 stands for tie."""
    grad = torch.tensor([1.0, 1.0 + 2.0**-40, 0.5, 1e300, -1e200], dtype=FP64)
    (direction,) = chosen(backend, [grad], beta1=0.5, count=3)
    assert direction.tolist() == [1.0, 1.0, 0.0, 1.0, -1.0]


def test_an_overflow_changes_nothing(backend):
    call = make_call(
        RULE, Variant({"count": 2}), [TensorCase((9,))], device=backend.device, found_inf=torch.ones((), dtype=torch.float32)
    )
    before = call.clone()
    call.run(backend)
    assert torch.equal(call.lists["params"][0], before.lists["params"][0])
    assert torch.equal(call.steps, before.steps)
