"""NormalizedSGD by the norm of all tensors: of all groups, dtypes and calls of a step."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import Gradients, assert_same_bits, make_params, snapshot, train


def test_all_tensors_move_by_lr_together():
    params = make_params(torch.float64)
    groups = [{"params": params[:2]}, {"params": params[2:4], "cautious": "mask"}, {"params": params[4:], "lr": 0.125}]
    groups[1]["cautious"] = False
    groups[1]["momentum"] = 0.5  # a call of its own
    optimizer = optim.NormalizedSGD(groups, lr=0.25, scope="all")
    averages = [torch.zeros_like(p) for p in params]
    gradients = Gradients()
    for _ in range(4):
        gradients.fill(params)
        before = [p.detach().clone() for p in params]
        optimizer.step()
        for i, p in enumerate(params):
            mu = 0.5 if i in (2, 3) else 0.9
            averages[i] = mu * averages[i] + (1 - mu) * p.grad
        norm = torch.cat([a.flatten() for a in averages]).norm()
        for i, (p, old) in enumerate(zip(params, before, strict=True)):
            expected = old - (0.125 if i >= 4 else 0.25) * averages[i] / norm
            torch.testing.assert_close(p.detach(), expected, rtol=1e-13, atol=1e-14)


def test_groups_of_either_scope():
    """Those by tensor are stepped as without the others, whose norm they do not join."""
    params, alone = make_params(), make_params()
    both = optim.NormalizedSGD([{"params": params[:3]}, {"params": params[3:], "scope": "all"}])
    own = [optim.NormalizedSGD(alone[:3]), optim.NormalizedSGD(alone[3:], scope="all")]
    gradients, same = Gradients(), Gradients()
    for _ in range(3):
        gradients.fill(params)
        same.fill(alone)
        both.step()
        for optimizer in own:
            optimizer.step()
    for p, q in zip(params, alone, strict=True):
        assert torch.equal(p, q)


def test_dtypes_share_the_norm():
    params = [*make_params(torch.float64), *make_params(torch.bfloat16, seed=1)]
    optimizer = optim.NormalizedSGD(params, lr=1.0, momentum=0.0, scope="all", compensation="master")
    Gradients().fill(params)
    before = [p.detach().clone().double() for p in params]
    optimizer.step()
    steps = [b - optimizer.state[p].get("master_param", p).detach() for p, b in zip(params, before, strict=True)]
    assert torch.cat([s.flatten() for s in steps]).norm().item() == pytest.approx(1.0, rel=1e-6)


def test_state_dict_mid_run():
    params = make_params()
    optimizer = optim.NormalizedSGD(params, scope="all")
    train(optimizer, params, 3, Gradients())
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = optim.NormalizedSGD(twins)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    assert resumed.param_groups[0]["scope"] == "all"
    train(optimizer, params, 2, Gradients(5))
    train(resumed, twins, 2, Gradients(5))
    assert_same_bits(snapshot(optimizer), snapshot(resumed))


def test_one_tensor_at_a_time_is_refused():
    params = make_params()
    optimizer = optim.NormalizedSGD(params, scope="all")
    Gradients().fill(params)
    with pytest.raises(RuntimeError, match="step_param\\(\\) cannot divide by the norm of all tensors"):
        optimizer.step_param(params[0])
    assert not optimizer.state
    optim.NormalizedSGD(make_params(), scope="all").step()  # without gradients nothing happens
