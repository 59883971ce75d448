"""Steps that are repeated without Python: the same bits as any other step.

What users may edit between two steps is in test_stale.py, whose second step is a repeated one; who must hear of a step, what is
refused and what is kept is in test_repeat_limits.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from momentum import _ops, optim
from ops import emulator
from optim.cases import CASES, Gradients, assert_same_bits, make_params, params_of, snapshot, train
from optim.repeats import counted

BY_PARTS = {"NormalizedSGD-all", "Adan-clipped"}
"""What completes totals in the middle of a step, or scales gradients by a tensor made for it."""
MANY = [(i % 5 + 1, 3) for i in range(400)]
"""Enough for threads to share the reading."""


MAKE = {name: case.make for name, case in CASES.items()} | {
    "SPAM-sparse": lambda params: optim.SPAM(params, density=0.25),
    "FRUGAL": lambda params: optim.FRUGAL(params, density=0.25),
}


def trained(
    make: Callable[[list[nn.Parameter]], Any], shapes: list[tuple[int, ...]], *, repeats: bool, device: str = "cpu"
) -> dict[str, Tensor]:
    """Return what four steps lead to."""
    params = [nn.Parameter(param.detach().to(device)) for param in make_params(shapes=shapes)]
    optimizer = make(params)
    with counted(repeats=repeats) as taken:
        train(optimizer, params, 4, Gradients())
    assert any(taken) == repeats, taken
    return snapshot(optimizer)


@pytest.mark.parametrize("name", [name for name in CASES if name not in BY_PARTS])
def test_same_bits(name):
    make, shapes = CASES[name].make, [(7, 5), (33,), (), (3, 2, 2), (1,)]
    assert_same_bits(trained(make, shapes, repeats=True), trained(make, shapes, repeats=False))


@pytest.mark.parametrize("name", ["AdamW", "SCALE-momentum", "SPAM-sparse"])
def test_same_bits_on_each_backend(backend, name):
    """Of a rule of one pass, of one that reduces first, and of a share of the entries."""
    if backend.namespace == "momentum_emulated":
        emulator.library()
    with _ops.namespace(backend.namespace):
        results = [trained(MAKE[name], [(7, 5), (6, 4)], repeats=repeats, device=backend.device) for repeats in (True, False)]
    assert_same_bits(*results)


OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {"state_format": "int8"},
    "int4": {"state_format": "int4"},
    "ema": {"ema_decay": 0.9},
    "cautious": {"cautious": "rescaled"},
    "bfloat16 states": {"state_format": torch.bfloat16},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_same_bits_with_other_states(name):
    def make(params: list[nn.Parameter]) -> optim.AdamW:
        return optim.AdamW(params, lr=0.1, **OPTIONS[name])

    assert_same_bits(trained(make, MANY, repeats=True), trained(make, MANY, repeats=False))


@pytest.mark.parametrize("compensation", ["kahan", "master", "low_bits"])
def test_same_bits_with_residuals(compensation):
    """Repeated where all parameters have what is kept beside those of low precision, and not where only some have."""
    results = []
    for repeats in (True, False):
        params = make_params(torch.bfloat16, [(4, 3)] * 3)
        optimizer = optim.AdamW(params, lr=0.1, compensation=compensation)
        with counted(repeats=repeats) as taken:
            train(optimizer, params, 3, Gradients())
        assert sum(taken) == 2 * repeats
        results.append(snapshot(optimizer))
    assert_same_bits(*results)
    mixed = [*make_params(torch.bfloat16, [(4, 3)]), *make_params(shapes=[(4, 3)])]
    with counted() as taken:
        train(optim.AdamW(mixed, compensation=compensation), mixed, 3, Gradients())
    assert not any(taken)


def test_a_parameter_that_turns_narrow_gets_its_residual():
    param = nn.Parameter(torch.ones(5))
    optimizer = optim.AdamW([param], compensation="kahan")
    train(optimizer, [param], 3, Gradients())
    param.grad, param.data = None, param.data.bfloat16()
    train(optimizer, [param], 1, Gradients())
    assert "compensation" in optimizer.state[param]


def test_rates_of_a_schedule():
    """Numbers in groups change at every step; groups differ in them."""
    results = []
    for repeats in (True, False):
        params = make_params(shapes=[(4, 3), (5,), (2, 2)])
        optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.5}], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        gradients = Gradients()
        with counted(repeats=repeats) as taken:
            for _ in range(4):
                train(optimizer, params, 1, gradients)
                schedule.step()
        assert sum(taken) == 3 * repeats
        results.append(snapshot(optimizer))
    assert_same_bits(*results)


def test_rates_that_are_tensors_are_read_at_each_step():
    param = nn.Parameter(torch.zeros(3))
    rate = torch.tensor(1.0)
    optimizer = optim.SGD([param], lr=rate)
    for value in (1.0, 0.5, 0.25):
        rate.fill_(value)
        param.grad = torch.ones(3)
        optimizer.step()
    assert param.tolist() == [-1.75] * 3


def test_idle_parameters():
    """A parameter without a gradient stays as it is until it gets one, and is then stepped with the others."""
    params = make_params(shapes=[(4, 3)] * 3)
    optimizer = optim.AdamW(params)
    with counted() as taken:
        train(optimizer, params[:2], 3, Gradients())
        assert params[2] not in optimizer.state
        train(optimizer, params, 2, Gradients())
        assert taken[-1]
        params[0].grad = None
        optimizer.step()
        optimizer.step()
        assert taken[:2] == [True, True]
        assert taken[-1]
    assert [int(optimizer.state[param]["step"]) for param in params] == [5, 7, 4]


@pytest.mark.parametrize("edit", ["order", "names", "more", "torch's"])
def test_dictionaries_with_other_keys(edit):
    """States are found by their names, in whatever order and as whatever strings these are there."""
    results = []
    for repeats in (True, False):
        params = make_params(shapes=MANY)
        optimizer = optim.AdamW(params, state_format="int8")
        gradients = Gradients()
        train(optimizer, params, 2, gradients)
        if edit == "torch's":
            optimizer = optim.AdamW(params)
            twin = torch.optim.AdamW(params)
            train(twin, params, 1, gradients)
            optimizer.load_state_dict(twin.state_dict())
        for i, param in enumerate(params):
            state = optimizer.state[param]
            items = list(state.items())
            match edit:
                case "order" if i % 3:
                    items.reverse()
                case "names" if i % 2:
                    items = [("".join(list(name)), value) for name, value in items]
                case "more" if i % 2:
                    items.insert(i % 4, (f"note {i}", i))
            state.clear()
            state.update(items)
        with counted(repeats=repeats) as taken:
            train(optimizer, params, 3, gradients)
        assert taken[1:] == [repeats] * (len(taken) - 1)
        results.append(snapshot_tensors(optimizer))
    assert_same_bits(*results)


def snapshot_tensors(optimizer: Any) -> dict[str, Tensor]:
    """Return copies of all parameters and of those of their states that are tensors."""
    found = {}
    for i, param in enumerate(params_of(optimizer)):
        found[f"param {i}"] = param.detach().clone()
        found |= {f"{k} {i}": v.clone() for k, v in optimizer.state[param].items() if isinstance(v, Tensor)}
    return found


def test_gradients_that_python_has_not_seen():
    results = []
    for repeats in (True, False):
        params = make_params(shapes=MANY)
        optimizer = optim.Lion(params, lr=0.1)
        with counted(repeats=repeats) as taken:
            for _ in range(3):
                torch.stack([param.square().sum() for param in params]).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        assert sum(taken) == 2 * repeats
        results.append(snapshot(optimizer))
    assert_same_bits(*results)


def test_copies_start_anew():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 3, Gradients())
    twin = copy.deepcopy(optimizer)
    for one in (optimizer, twin):
        train(one, params_of(one), 2, Gradients(5))
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize("name", ["SPAM-sparse", "FRUGAL"])
def test_same_bits_on_a_share_of_the_entries(name):
    shapes = [(8, 16), (33,), (6, 40)]
    assert_same_bits(trained(MAKE[name], shapes, repeats=True), trained(MAKE[name], shapes, repeats=False))


@pytest.mark.parametrize("edit", ["none", "rate", "state", "order", "other group"])
def test_single_parameters(edit):
    results = []
    for repeats in (True, False):
        params = make_params(shapes=[(4, 3), (5,), (2, 2)])
        optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.5}], lr=0.1)
        gradients = Gradients()
        with counted(repeats=repeats) as taken:
            for step in range(4):
                gradients.fill(params)
                if step == 2:
                    match edit:
                        case "rate":
                            optimizer.param_groups[0]["lr"] = 0.5
                        case "state":
                            optimizer.state[params[1]] = {k: v + 1 for k, v in optimizer.state[params[1]].items()}
                        case "order":
                            optimizer.param_groups[0]["params"].reverse()
                        case "other group":
                            optimizer.param_groups[1]["lr"] = 0.5
                for param in params:
                    optimizer.step_param(param)
        assert sum(taken) >= 6 * repeats
        assert taken[-3:] == [repeats] * 3
        results.append(snapshot(optimizer))
    assert_same_bits(*results)
