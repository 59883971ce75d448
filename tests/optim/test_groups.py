"""Which tensors go in one call, with which numbers, as parameters and groups come and go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import _direct, _ops, optim
from momentum.optim import _launch
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train


@pytest.fixture
def calls(monkeypatch):
    """Return the list of (op, number of tensors) of all calls made."""
    made = []
    original = _ops.step_

    def record(rule, params, *args, **options):
        made.append((rule, len(params)))
        original(rule, params, *args, **options)

    monkeypatch.setattr(_ops, "step_", record)
    return made


def test_groups_that_differ_in_rates_share_a_call(calls):
    params = make_params()
    groups = [{"params": [p], "lr": 0.1 * i, "weight_decay": 0.01 * (5 - i)} for i, p in enumerate(params)]
    optimizer = optim.AdamW(groups)
    with _direct.disabled():  # a repeated step calls nothing of Python's
        train(optimizer, params, 2, Gradients())
    assert calls == [("adam", len(params))] * 2


@pytest.mark.parametrize("name", CLASSES)
def test_one_call_equals_one_optimizer_per_group(name):
    """Every group gets its own numbers, whatever shares its call."""
    make = CASES[name].make
    together, apart = make_params(shapes=[(4, 3)] * 4), make_params(shapes=[(4, 3)] * 4)
    rates = [{"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.2, "weight_decay": 0.5}]
    optimizer = make([{"params": p, **rates[i % 2]} for i, p in enumerate(together)]) if "SCALE" not in name else None
    if optimizer is None:
        optimizer = optim.SCALE([{"params": p, **rates[i % 2]} for i, p in enumerate(together)], momentum=0.9, norm="l2")
    others = [make([p], **rates[i % 2]) for i, p in enumerate(apart)]
    ours, theirs = Gradients(), Gradients()
    for _ in range(12):
        ours.fill(together)
        theirs.fill(apart)
        optimizer.step()
        for other in others:
            other.step()
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(a, b)


def test_groups_that_differ_in_more_get_calls_of_their_own(calls):
    params = make_params()
    optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:3], "eps": 1e-3}, {"params": params[3:]}])
    train(optimizer, params, 1, Gradients())
    assert sorted(calls) == [("adam", 1), ("adam", len(params) - 1)]


def test_dtypes_mix_in_one_call(calls):
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
    params = [nn.Parameter(torch.ones(5, dtype=dtype)) for dtype in dtypes]
    optimizer = optim.AdamW(params, compensation="kahan", ema_decay=0.9)
    train(optimizer, params, 3, Gradients())
    assert calls == [("adam", 4)] * 3
    states = [optimizer.state[p] for p in params]
    assert [s["exp_avg"].dtype for s in states] == [torch.float32, torch.float32, torch.float64, torch.float32]
    assert ["compensation" in s for s in states] == [False, True, False, True]
    assert states[1]["compensation"].dtype == torch.bfloat16


def test_plan_is_made_once_and_survives_schedules(monkeypatch):
    made = []
    original = _launch.Launch.__init__
    monkeypatch.setattr(_launch.Launch, "__init__", lambda self, *a: made.append(1) or original(self, *a))
    params = make_params()
    optimizer = optim.AdamW([{"params": params[:3]}, {"params": params[3:], "weight_decay": 0.0}])
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
            group["betas"] = (0.9 - 0.01 * step, 0.99)
        train(optimizer, params, 1, Gradients())
    assert len(made) == 1


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_without_gradient_are_left_alone(name):
    params = make_params()
    optimizer = CASES[name].make(params)
    before = [p.detach().clone() for p in params]
    Gradients().fill(params)
    params[1].grad = None
    params[4].grad = None
    optimizer.step()
    for i in (1, 4):
        assert torch.equal(params[i], before[i])
        assert params[i] not in optimizer.state
    assert not torch.equal(params[0], before[0])


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_that_come_and_go_step_as_if_alone(name):
    """A parameter with a gradient every other step is stepped then, by its own count."""
    make = CASES[name].make
    params, alone = make_params(shapes=[(4, 3), (5, 2)]), make_params(shapes=[(4, 3), (5, 2)])
    optimizer = make(params)
    others = [make([p]) for p in alone]
    gradients = Gradients()
    for step in range(12):
        gradients.fill(params)
        for p, q in zip(params, alone, strict=True):
            q.grad = p.grad.clone()
        if step % 2:
            params[1].grad = None
        else:
            others[1].step()
        others[0].step()
        optimizer.step()
    for p, q, other in zip(params, alone, others, strict=True):
        assert torch.equal(p, q)
        assert optimizer.state[p]["step"] == other.state[q]["step"]


@pytest.mark.parametrize("name", CLASSES)
def test_no_gradients_at_all(name):
    params = make_params()
    optimizer = CASES[name].make(params)
    before = snapshot(optimizer)
    optimizer.step()
    assert_same_bits(before, snapshot(optimizer))


def test_frozen_and_thawed():
    params = make_params(shapes=[(3,), (4,)])
    optimizer = optim.AdamW(params)
    params[1].requires_grad_(False)
    for _ in range(2):
        optimizer.zero_grad()
        sum(p.sum() for p in params).backward()
        optimizer.step()
    assert params[1] not in optimizer.state
    params[1].requires_grad_(True)
    optimizer.zero_grad()
    sum(p.sum() for p in params).backward()
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params] == [3, 1]


def test_group_added_late():
    params = make_params(shapes=[(3,), (4,)])
    optimizer = optim.AdamW(params[:1])
    train(optimizer, params[:1], 2, Gradients())
    optimizer.add_param_group({"params": params[1], "lr": 0.5})
    train(optimizer, params, 1, Gradients())
    assert [int(optimizer.state[p]["step"]) for p in params] == [3, 1]
    assert optimizer.param_groups[1]["lr"] == 0.5
    assert optimizer.param_groups[1]["weight_decay"] == 0.01


def test_named_parameters():
    model = nn.Linear(2, 2)
    optimizer = optim.AdamW(model.named_parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_other_strides_of_size_one_dims_and_channels_last():
    param = nn.Parameter(torch.randn(4, 1, 3, 3).to(memory_format=torch.channels_last))
    param.grad = torch.randn(4, 1, 3, 3)  # equal strides but for the dimension of size 1
    conv = nn.Parameter(torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last))
    conv.grad = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last)
    twins = [nn.Parameter(p.detach().clone()) for p in (param, conv)]
    for twin, p in zip(twins, (param, conv), strict=True):
        twin.grad = p.grad.clone()
    optim.AdamW([param, conv]).step()
    torch.optim.AdamW(twins).step()
    for twin, p in zip(twins, (param, conv), strict=True):
        torch.testing.assert_close(p, twin)
