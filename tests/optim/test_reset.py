"""Resetting states: a true restart, the momentum alone, quantised states, and what must stay."""

from __future__ import annotations

import copy

import pytest
import torch

from momentum import optim
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train
from optim.quantised import trained

NAMES = [*CLASSES, "Lion-top-k", "SPAM-subset", "FRUGAL"]


def make(name, params, **options):
    if name == "SPAM-subset":
        return optim.SPAM(params, density=0.25, reset_interval=4, **options)
    if name == "FRUGAL":
        return optim.FRUGAL(params, update_gap=3, **options)
    return CASES[name].make(params, **options)


def assert_restarts(name, params, optimizer):
    """The next steps are those of a new optimizer of the same parameters."""
    fresh_params = [torch.nn.Parameter(p.detach().clone()) for p in params]
    fresh = make(name, fresh_params, lr=0.01)
    train(optimizer, params, 3, Gradients(7))
    train(fresh, fresh_params, 3, Gradients(7))
    assert_same_bits(snapshot(optimizer), snapshot(fresh))
    for p, other in zip(params, fresh_params, strict=True):
        assert torch.equal(p, other)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_restart(name, loaded):
    params = make_params()
    optimizer = make(name, params, lr=0.01)
    train(optimizer, params, 5, Gradients())
    if loaded:
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer = make(name, params, lr=0.01)
        optimizer.load_state_dict(saved)
    optimizer.reset_state()
    assert all(state["step"] == 0 for state in optimizer.state.values())
    assert_restarts(name, params, optimizer)


@pytest.mark.parametrize("state_format", ["int4", "int8", "fp8"])
def test_quantised_states_are_those_of_a_new_optimizer(state_format):
    params, optimizer, _ = trained("AdamW", state_format=state_format, quantize_min_numel=4096)
    optimizer.reset_state()
    fresh = CASES["AdamW"].make(params, state_format=state_format, quantize_min_numel=4096)
    own = [p.detach().clone() for p in params]
    train(optimizer, params, 1, Gradients(3))
    stepped = snapshot(optimizer)
    with torch.no_grad():
        for p, value in zip(params, own, strict=True):
            p.copy_(value)
    train(fresh, params, 1, Gradients(3))
    assert_same_bits(stepped, snapshot(fresh))


def test_momentum_alone():
    params = make_params()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 4, Gradients())
    before = {i: s["exp_avg_sq"].clone() for i, s in enumerate(optimizer.state.values())}
    optimizer.reset_state(states=["exp_avg"], keep_step=True)
    for i, state in enumerate(optimizer.state.values()):
        assert not state["exp_avg"].any()
        assert torch.equal(state["exp_avg_sq"], before[i])
        assert state["step"] == 4


def test_chosen_parameters():
    params = make_params()
    optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:]}])
    train(optimizer, params, 2, Gradients())
    optimizer.reset_state(optimizer.param_groups[1]["params"])
    assert [float(optimizer.state[p]["step"]) for p in params] == [2.0, 2.0] + [0.0] * (len(params) - 2)
    assert optimizer.state[params[0]]["exp_avg"].any()
    assert not optimizer.state[params[-1]]["exp_avg"].any()


@pytest.mark.parametrize("compensation", ["kahan", "master", "low_bits"])
def test_what_is_beside_the_parameter_stays(compensation):
    params = make_params(torch.bfloat16)
    optimizer = optim.AdamW(params, compensation=compensation, ema_decay=0.9)
    train(optimizer, params, 3, Gradients())
    names = ("compensation", "master_param", "low_bits", "ema")
    before = [{name: s[name].clone() for name in names if name in s} for s in optimizer.state.values()]
    assert all(len(kept) == 2 for kept in before)
    optimizer.reset_state()
    for kept, state in zip(before, optimizer.state.values(), strict=True):
        assert all(torch.equal(state[name], value) for name, value in kept.items())
        assert not state["exp_avg"].any()


def test_scalars_stay_with_the_step():
    """StableSPAM's averages of norms are corrected by the count: they go when it goes."""
    params = make_params()
    optimizer = optim.StableSPAM(params)
    train(optimizer, params, 3, Gradients())
    optimizer.reset_state(keep_step=True)
    assert all(state["scalars"].any() for p, state in optimizer.state.items() if p.numel())
    optimizer.reset_state()
    assert not any(state["scalars"].any() for state in optimizer.state.values())


def test_without_state_nothing_happens():
    optimizer = optim.AdamW(make_params())
    optimizer.reset_state()
    assert not optimizer.state


def test_refusals():
    params = make_params()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    before = copy.deepcopy(snapshot(optimizer))
    with pytest.raises(ValueError, match=r"params\[1\] is not a parameter"):
        optimizer.reset_state([params[0], torch.ones(3)])
    with pytest.raises(TypeError, match="iterable of parameters"):
        optimizer.reset_state(params[0])
    with pytest.raises(ValueError, match="unknown name 'momentum'; expected some of"):
        optimizer.reset_state(states=["exp_avg", "momentum"])
    with pytest.raises(TypeError, match="list of names"):
        optimizer.reset_state(states="exp_avg")
    assert_same_bits(before, snapshot(optimizer))
