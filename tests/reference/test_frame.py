"""The frame, the reductions and SCALE against closed forms and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from momentum.enums import Cautious, DecayMode
from momentum.reference import (
    adam,
    apply_step,
    cautious_mask,
    scale,
    segment_reduce,
    sgd,
    stable_spam,
    weight_average,
)
from momentum.reference.stable_spam import cosine_scale, normalise

PARAM, GRAD, LR, WD = 2.0, 0.5, 0.25, 0.4


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (DecayMode.NONE, PARAM - LR * GRAD),
        (DecayMode.L2, PARAM - LR * (GRAD + WD * PARAM)),
        (DecayMode.DECOUPLED, PARAM - LR * GRAD - LR * WD * PARAM),
        (DecayMode.LR_DECOUPLED, PARAM - LR * GRAD - LR / 0.5 * WD * PARAM),
        (DecayMode.PROX, (PARAM - LR * GRAD) / (1 + LR * WD)),
        (DecayMode.DECOUPLED_AFTER, (PARAM - LR * GRAD) - LR * WD * (PARAM - LR * GRAD)),
    ],
)
def test_decay(decay, expected):
    param, grad = torch.tensor(PARAM).double(), torch.tensor(GRAD).double()
    new, _ = apply_step(sgd, param, grad, {}, 1, lr=LR, weight_decay=WD, decay=decay, max_lr=0.5)
    assert new.item() == pytest.approx(expected, rel=1e-15)


def test_prox_minimises_its_model():
    """PROX solves min_x <g, x> + |x - p|^2 / (2 lr) + wd |x|^2 / 2: its gradient vanishes at the result."""
    param, grad = torch.randn(2, 9, dtype=torch.float64)
    new, _ = apply_step(sgd, param, grad, {}, 1, lr=LR, weight_decay=WD, decay=DecayMode.PROX)
    assert (grad + (new - param) / LR + WD * new).abs().max() < 1e-14


def test_unscale_and_maximize():
    param, grad = torch.randn(2, 9, dtype=torch.float64)
    plain, _ = apply_step(sgd, param, grad, {}, 1, lr=LR)
    scaled, _ = apply_step(sgd, param, -1024 * grad, {}, 1, lr=LR, maximize=True, grad_scale=1024.0)
    assert torch.equal(plain, scaled)


def test_cautious_keeps_what_agrees():
    update = torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0]).double()
    grad = torch.tensor([1.0, 1.0, -1.0, 1.0, 0.5]).double()
    assert cautious_mask(update, grad, Cautious.MASK).tolist() == [1.0, 0.0, 0.0, 0.0, 5.0]
    assert cautious_mask(update, grad, Cautious.RESCALED).tolist() == pytest.approx([2.5, 0, 0, 0, 12.5])


def test_cautious_share_has_a_floor():
    update = torch.ones(5000).double()
    grad = torch.full((5000,), -1.0).double()
    grad[0] = 1.0
    assert cautious_mask(update, grad, Cautious.RESCALED)[0].item() == pytest.approx(1000.0)


def test_weight_average():
    assert weight_average(torch.tensor(1.0), torch.tensor(3.0), 0.75).item() == 1.5


@pytest.mark.parametrize("axis", [0, 1])
def test_scale_has_unit_lines(axis):
    """Each line of the update has norm 1 (l2) or root mean square 1, and a zero line is left at zero."""
    grad = torch.randn(6, 9, dtype=torch.float64)
    grad.select(1 - axis, 2).zero_()
    length = grad.shape[axis]
    lines = torch.ones(grad.shape[1 - axis], dtype=torch.float64)
    lines[2] = 0
    l2, _ = scale(grad, {}, 1, axis=axis, l2=True)
    rms, _ = scale(grad, {}, 1, axis=axis)
    assert torch.allclose(l2.norm(dim=axis), lines, rtol=1e-14)
    assert torch.allclose(rms.norm(dim=axis), lines * math.sqrt(length), rtol=1e-14)
    averaged, new = scale(grad, {"exp_avg": torch.zeros_like(grad)}, 1, axis=axis)
    assert torch.allclose(averaged, rms, rtol=1e-14)
    assert torch.allclose(new["exp_avg"], 0.1 * grad, rtol=1e-14)


def test_stable_spam_normalises():
    """At the first step T̂ is the maximum and C is 1 / (1 + eps / |g|), whatever the size of the gradient."""
    grad = 1e6 * torch.randn(50, dtype=torch.float64)
    zeros = {"exp_avg": torch.zeros(50).double(), "exp_avg_sq": torch.zeros(50).double()}
    _, new = stable_spam(grad, {**zeros, "scalars": torch.zeros(3).double()}, 1)
    assert new["exp_avg"].norm().item() == pytest.approx(0.1, rel=1e-12)


def test_stable_spam_cosine():
    """torch's scheduler is an independent form of the schedule: 1 to eta_min over total_steps + 1 steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100 + 1, eta_min=0.3)
    for step in range(1, 102):
        optimizer.step()
        annealing.step()
        for official in (False, True):
            assert cosine_scale(step, 100, 0.3, official) == pytest.approx(annealing.get_last_lr()[0], abs=1e-13)
    assert cosine_scale(150, 100, 0.3, False) == pytest.approx(0.3)
    assert cosine_scale(202, 100, 0.3, True) == pytest.approx(1.0)


def test_stable_spam_official_reset():
    """The published code uses the old moments once more, as Adam's step 1, and stores zeros."""
    grad = torch.randn(50, dtype=torch.float64)
    state = {name: torch.rand(50).double() for name in ("exp_avg", "exp_avg_sq")}
    state["scalars"] = torch.tensor([3.0, 7.0, 50.0]).double()
    update, new = stable_spam(grad, state, 20, reset_interval=20, official=True)
    clipped, averages = normalise(grad, state["scalars"], 20, gamma1=0.7, gamma2=0.9, theta=0.999, eps=1e-8)
    assert torch.equal(update, adam(clipped, state, 1)[0])
    assert torch.equal(new["scalars"], averages)
    assert not new["exp_avg"].any()
    assert not new["exp_avg_sq"].any()


def test_reductions_match_numpy():
    xs = [torch.randn(shape, dtype=torch.float64) for shape in [(4, 3), (1, 7), (5, 1)]]
    ys = [torch.randn_like(x) for x in xs]
    forms = {
        0: lambda x, y, axis: x.sum(axis),
        1: lambda x, y, axis: (x * x).sum(axis),
        2: lambda x, y, axis: (x * y).sum(axis),
        3: lambda x, y, axis: np.abs(x).max(axis),
    }
    for op, form in forms.items():
        for axis in (-1, 0, 1):
            parts = [np.atleast_1d(form(x.numpy(), y.numpy(), None if axis < 0 else axis)) for x, y in zip(xs, ys, strict=True)]
            got = segment_reduce(xs, ys, op=op, axis=axis).numpy()
            assert np.allclose(got, np.concatenate(parts), rtol=1e-13, atol=1e-13)


def test_reductions_of_nothing():
    empty = [torch.empty(0), torch.empty(3, 0)]
    for op in range(4):
        assert segment_reduce(empty, empty, op=op, axis=-1).tolist() == [0.0, 0.0]
    assert segment_reduce([], [], op=0, axis=-1).numel() == 0
