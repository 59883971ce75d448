"""Stepping one parameter at a time, during the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot


@pytest.mark.parametrize("name", CLASSES)
def test_one_by_one_equals_all_at_once(name):
    one, all_ = make_params(), make_params()
    by_one, at_once = CASES[name].make(one), CASES[name].make(all_)
    ours, theirs = Gradients(), Gradients()
    for _ in range(12):
        ours.fill(one)
        theirs.fill(all_)
        for p in reversed(one):
            by_one.step_param(p)
        at_once.step()
    assert_same_bits(snapshot(by_one), snapshot(at_once))


def model_and_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, torch.randn(16, 6), torch.randn(16, 1)


def test_hooks_free_gradients_inside_backward():
    """The documented recipe: the path of ordinary steps, and never more than one gradient alive."""
    model, x, y = model_and_batch()
    twin, _, _ = model_and_batch()
    optimizer, ordinary = optim.AdamW(model.parameters(), lr=0.01), optim.AdamW(twin.parameters(), lr=0.01)
    alive = []

    def step_and_free(param):
        alive.append(sum(p.grad is not None for p in model.parameters()))
        optimizer.step_param(param)
        param.grad = None

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(step_and_free)
    for _ in range(5):
        nn.functional.mse_loss(model(x), y).backward()
        assert all(p.grad is None for p in model.parameters())
        ordinary.zero_grad()
        nn.functional.mse_loss(twin(x), y).backward()
        ordinary.step()
    assert max(alive) == 1
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_mixed_with_whole_steps():
    params, twins = make_params(), make_params()
    mixed, plain = optim.AdamW(params), optim.AdamW(twins)
    ours, theirs = Gradients(), Gradients()
    for step in range(6):
        ours.fill(params)
        theirs.fill(twins)
        plain.step()
        if step % 2:
            mixed.step()
        else:
            for p in params:
                mixed.step_param(p)
    assert_same_bits(snapshot(mixed), snapshot(plain))


def test_scheduler_sees_the_steps(recwarn):
    params = make_params(shapes=[(3,)])
    optimizer = optim.AdamW(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    Gradients().fill(params)
    optimizer.step_param(params[0])
    scheduler.step()
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


def test_foreign_parameter_and_missing_gradient():
    params = make_params(shapes=[(3,)])
    optimizer = optim.AdamW(params)
    optimizer.step_param(params[0])
    assert not optimizer.state
    stranger = nn.Parameter(torch.ones(2))
    stranger.grad = torch.ones(2)
    with pytest.raises(ValueError, match="not a parameter of this optimizer"):
        optimizer.step_param(stranger)
