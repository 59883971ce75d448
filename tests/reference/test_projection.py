"""The references of AdamP, SGDP and perpendicular gradients against pytorch_optimizer and the published code's quirks.

Both sides work in float64 and make fewer than 32 roundings a step: 60 steps stay below 60 * 32 * 2^-53 < 1e-12.
"""

from __future__ import annotations

import pytest
import torch

from momentum.enums import DecayMode, Perpendicular
from momentum.reference import adamp, apply_step, perpendicular_gradient, sgd, sgdp
from momentum.reference.projection import project
from reference.trajectory import SHAPES, assert_same_path, gradients, start, with_class, with_reference

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")

STEPS = 60
TOLERANCE = 1e-12
COMMON = {"lr": 0.01, "weight_decay": 0.3, "delta": 1.5, "wd_ratio": 0.25}
D = {"decay": DecayMode.DECOUPLED}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_adamp(shape, nesterov, maximize):
    """With eps 0: theirs divides it by the correction of the second moment."""
    hypers = {**COMMON, "nesterov": nesterov, "eps": 0.0, "maximize": maximize}
    theirs = with_class(
        lambda params: pytorch_optimizer.AdamP(params, betas=(0.85, 0.97), foreach=False, **hypers), shape, STEPS
    )
    states = {"exp_avg": None, "exp_avg_sq": None}
    ours = with_reference(adamp, states, shape, STEPS, {**hypers, **D, "beta1": 0.85, "beta2": 0.97})
    assert_same_path(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "hypers", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.3}]
)
def test_sgdp(shape, hypers):
    hypers = {**COMMON, **hypers}
    theirs = with_class(lambda params: pytorch_optimizer.SGDP(params, foreach=False, **hypers), shape, STEPS)
    ours = with_reference(sgdp, {"momentum_buffer": None}, shape, STEPS, {**hypers, **D})
    assert_same_path(ours, theirs, TOLERANCE)


def test_views_that_are_compared_are_all_met():
    """The comparisons above would prove little if every step of them projected, or none."""
    found = set()
    for shape in ((16, 12), (4, 3, 3, 3)):
        for grad in gradients(shape, STEPS):
            param = start(shape)
            update, decay = project(grad, param, grad, delta=1.5, wd_ratio=0.25, eps=1e-8)
            rows = (update * param).reshape(shape[0], -1).sum(1).abs().max()
            found.add("none" if decay == 1 else "rows" if rows < 1e-9 else "tensor")
    assert found >= {"none", "tensor"}
    narrow = torch.zeros(2, 3).double()
    narrow[0, 0] = 1.0
    assert project(narrow.flip(1), narrow, narrow.flip(1) + narrow, delta=0.1, wd_ratio=0.5, eps=1e-8)[1] == 0.5


def test_project_momentum_keeps_what_the_projection_left():
    """As in the published code, where the update and the buffer are one tensor."""
    param, grad = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[-4.0, 3.0]]).double()
    state = {"momentum_buffer": torch.tensor([[3.0, 4.0]]).double()}
    for project_momentum, kept in ((False, [[-1.0, 7.0]]), (True, [[-4.0, 3.0]])):
        update, new, decay = sgdp(grad, state, 5, param=param, momentum=1 - 2.0**-30, project_momentum=project_momentum)
        torch.testing.assert_close(update, grad, rtol=0, atol=1e-7)
        torch.testing.assert_close(new["momentum_buffer"], torch.tensor(kept).double(), rtol=0, atol=1e-7)
        assert decay == pytest.approx(0.1 * 2**30)


@pytest.mark.parametrize("shape", [(16, 12), (12,), (4, 3, 3, 3)], ids=str)
def test_orthograd(shape):
    theirs = with_class(
        lambda params: pytorch_optimizer.OrthoGrad(torch.optim.SGD(params, lr=0.01, momentum=0.9)), shape, STEPS
    )
    options = {"lr": 0.01, "momentum": 0.9, "perpendicular": Perpendicular.RENORMALIZED}
    assert_same_path(with_reference(sgd, {"momentum_buffer": None}, shape, STEPS, options), theirs, TOLERANCE)


def test_perpendicular_gradient_in_closed_form():
    weight, grad = torch.tensor([3.0, 4.0]).double(), torch.tensor([1.0, 0.0]).double()
    projected = perpendicular_gradient(grad, weight, renormalize=False)
    torch.testing.assert_close(projected, torch.tensor([0.64, -0.48], dtype=torch.float64), rtol=1e-15, atol=0)
    torch.testing.assert_close(
        perpendicular_gradient(grad, weight), torch.tensor([0.8, -0.6], dtype=torch.float64), rtol=1e-15, atol=0
    )
    for parallel in (weight * 0.1, torch.zeros(2).double()):
        assert not perpendicular_gradient(parallel, weight).any()
    assert torch.equal(perpendicular_gradient(grad, 0 * weight), grad)
    param, _ = apply_step(sgd, weight, grad, {}, 1, lr=1.0, weight_decay=0.5, decay=DecayMode.L2, perpendicular=1)
    torch.testing.assert_close(param, 0.5 * weight - projected, rtol=1e-15, atol=0)  # decay comes after
