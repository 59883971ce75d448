"""AdamP and SGDP decide by tensor what they project; perpendicular gradients are perpendicular, in closed form."""

from __future__ import annotations

import pytest
import torch

from backends import BACKENDS
from momentum.enums import DecayMode, Perpendicular
from ops import emulator
from ops.call import check, make_call
from ops.cases import BF16, FP32, FP64, TensorCase, dtype_mixes
from rules import RULES, Variant, first

EMULATED = BACKENDS["emulated"]
VIEWS = ["none", "rows", "tensor"]
# Rows of one warp, of several groups and of one element, whole blocks, rows of several pieces, and another order in memory.
SHAPES = [(40, 30), (3, 2049), (2, 20_000), (1, 70_001), (300, 1), (17, 5, 3)]


def place(call, views: list[str]) -> None:
    """Turn the gradients so that each tensor's view is the one asked for."""
    for param, grad, view in zip(call.lists["params"], call.lists["grads"], views, strict=True):
        p, g = (x.double().cpu().reshape(x.shape[0], -1) for x in (param, grad))
        across = g - p * (p * g).sum(1, keepdim=True) / (p * p).sum(1, keepdim=True)
        sign = torch.ones(len(p), 1).double()
        if view == "tensor":  # each row has a component along the weights, which cancel in the sum
            sign[1::2] = -1
            share = p.shape[1] ** 0.5 / (p * p).sum(1, keepdim=True)
            sign[-1] = 0 if len(p) % 2 else -1
            across = across + sign * share * p
        if view == "none":
            across = across + p
        grad.copy_(across.reshape(grad.shape))


def views_of(call) -> list[int]:
    """Return what the sums of the rows' sums say, after a step."""
    sums = call.totals[-6 * len(call.cases) :].cpu().reshape(-1, 6)
    return sums[:, 0].int().tolist()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("rule", ["adamp", "sgdp"])
def test_each_view(backend, rule, view):
    shapes = [shape for shape in SHAPES if shape[0] > 1 and shape[-1] > 1] if view != "none" else SHAPES
    dtypes = [(FP32, FP32), (FP32, FP32), (FP64, FP64)]
    cases = [TensorCase(shape, *dtypes[i % 3], states=(dtypes[i % 3][0],) * 3, offset=i % 2) for i, shape in enumerate(shapes)]
    variant = Variant({"delta": 0.1, "wd_ratio": 0.25}, optional=True)
    call = make_call(RULES[rule], variant, cases, device=backend.device, decay=DecayMode.DECOUPLED, weight_decay=[0.5])
    place(call, [view] * len(cases))
    before = call.clone()
    call.run(backend)
    assert views_of(call) == [VIEWS.index(view)] * len(cases)
    check(before, call)


@pytest.mark.parametrize("rule", ["adamp", "sgdp"])
def test_rows_in_any_order_of_memory(backend, rule):
    """A row is what shares the first index: channels last keeps its elements together."""
    variant = list(RULES[rule].variants.values())[1]
    case = TensorCase((6, 3, 8, 8), layout="channels_last")
    call = make_call(RULES[rule], variant, [case], device=backend.device)
    before = call.clone()
    call.run(backend)
    check(before, call)
    with pytest.raises(RuntimeError, match="expected a contiguous tensor"):
        make_call(RULES[rule], variant, [TensorCase((33, 20), layout="transposed")], device=backend.device).run(backend)


@pytest.mark.parametrize("rule", ["adamp", "sgdp"])
def test_vectors_are_never_projected(backend, rule):
    """Nor is a tensor without elements beside it."""
    cases = [TensorCase((900,)), TensorCase(()), TensorCase((0,)), TensorCase((0, 4)), TensorCase((4, 0))]
    calls = []
    for delta in (0.0, 1e9):
        call = make_call(RULES[rule], Variant({"delta": delta}, optional=True), cases, device=backend.device)
        call.run(backend)
        calls.append(call)
    for one, other in zip(*(call.lists["params"] for call in calls), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", ["adamp", "sgdp"])
def test_nan_stays_in_its_tensor(backend, rule):
    call = make_call(RULES[rule], Variant({"delta": 9.0}, optional=True), [TensorCase((8, 30))] * 2, device=backend.device)
    call.lists["grads"][0][3, 3] = float("nan")
    call.run(backend)
    assert call.lists["params"][0].isnan().sum() == 1  # no view holds where a cosine is NaN, so nothing is spread
    assert not call.lists["params"][1].isnan().any()


def step_of_sgd(backend, cases, perpendicular, change=lambda call: None):
    call = make_call(RULES["sgd"], first(RULES["sgd"]), cases, device=backend.device, lr=[1.0], perpendicular=perpendicular)
    change(call)
    before = call.clone()
    call.run(backend)
    weights = [p.double().cpu() for p in before.lists["params"]]
    grads = [g.double().cpu() for g in before.lists["grads"]]
    return weights, grads, [w - p.double().cpu() for w, p in zip(weights, call.lists["params"], strict=True)]


def test_perpendicular_to_the_weights_at_the_same_norm(backend):
    cases = [TensorCase(shape, FP64, FP64) for shape in ((7,), (33, 20), (3, 9000), (70_001,))]
    for weight, grad, step in zip(*step_of_sgd(backend, cases, Perpendicular.RENORMALIZED), strict=True):
        assert (weight * step).sum().abs() <= 1e-13 * weight.norm() * step.norm()
        torch.testing.assert_close(step.norm(), grad.norm(), rtol=1e-12, atol=0)
    for weight, grad, step in zip(*step_of_sgd(backend, cases, Perpendicular.PROJECTED), strict=True):
        assert (weight * step).sum().abs() <= 1e-13 * weight.norm() * grad.norm()
        torch.testing.assert_close(grad - step, (weight * grad).sum() / (weight * weight).sum() * weight, rtol=1e-9, atol=1e-12)


def test_parallel_gradients_do_not_move(backend):
    """As those of tensors of one element; rounding of what is left is not blown up. Zero weights change nothing."""

    def change(call):
        call.lists["grads"][0].copy_(call.lists["params"][0] * 3.3)
        call.lists["grads"][2].copy_(call.lists["params"][2] * -0.7)
        call.lists["params"][3].zero_()
        call.lists["grads"][4].zero_()

    cases = [
        TensorCase((1000,)),
        TensorCase((1,)),
        TensorCase((55,), FP64, FP64),
        TensorCase((9,)),
        TensorCase((12,)),
        TensorCase(()),
    ]
    _, grads, steps = step_of_sgd(backend, cases, Perpendicular.RENORMALIZED, change)
    assert [bool(step.any()) for step in steps] == [False, False, False, True, False, False]
    assert torch.equal(steps[3], grads[3])


def test_nearly_parallel_gradients_keep_their_norm(backend):
    """Down to an angle of 1e-5 in float32 the sums still tell what is left, though the elements of that carry rounding."""

    def change(call):
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(5000, generator=generator, dtype=torch.float64).to(call.steps.device)
        weight = call.lists["params"][0].double()
        call.lists["grads"][0].copy_(weight + 1e-5 * noise)

    _, grads, steps = step_of_sgd(backend, [TensorCase((5000,))], Perpendicular.RENORMALIZED, change)
    # Rounding of elements is 2^-24 of them beside 1e-5, scaled up with it.
    torch.testing.assert_close(steps[0].norm(), grads[0].norm(), rtol=2.0**-24 / 1e-5 * 4, atol=0)


def test_reads_the_compensated_parameter(backend):
    """Where a master copy is kept, the step is perpendicular to that."""
    call = make_call(
        RULES["sgd"],
        first(RULES["sgd"]),
        [TensorCase((4096,), BF16)],
        device=backend.device,
        lr=[1.0],
        perpendicular=1,
        residual=2,
    )
    before = call.clone()
    call.run(backend)
    weight = before.lists["residuals"][0].double().cpu()
    step = weight - call.lists["residuals"][0].double().cpu()
    assert (weight * step).sum().abs() <= 2.0**-20 * weight.norm() * step.norm()


@pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))
@pytest.mark.parametrize("rule", ["adam", "scale", "adamp", "stable_spam"])
def test_perpendicular_gradients_are_one_launch_more(rule):
    cases = [case for case in dtype_mixes() if case.arithmetic == FP32]
    call = make_call(RULES[rule], first(RULES[rule]), cases, perpendicular=2)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [2 + RULES[rule].passes]
