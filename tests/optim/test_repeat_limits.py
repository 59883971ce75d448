"""Where a step must not be repeated: watched, heard or unusual ones; what is refused, and what is kept alive."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modes import assert_seen, watchers
from momentum import optim
from optim.cases import Gradients, assert_same_bits, make_params, snapshot, train
from optim.repeats import counted

MANY = [(i % 5 + 1, 3) for i in range(400)]
"""Enough for threads to share the reading."""


@pytest.mark.parametrize("watcher", watchers())
def test_watchers_see_the_op(watcher):
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    with counted() as taken:
        with watchers()[watcher] as watching:
            train(optimizer, params, 1, Gradients())
        assert not any(taken)
        train(optimizer, params, 1, Gradients())
        assert taken[-1]
    assert_seen(watching, "momentum::adam_")
    assert int(optimizer.state[params[0]]["step"]) == 4


def test_hooks_and_closures_are_called():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    seen: list[str] = []
    with counted() as taken:
        handle = optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
        train(optimizer, params, 1, Gradients())
        handle.remove()
        assert optimizer.step(lambda: seen.append("closure") or 7.0) == 7.0
        train(optimizer, params, 1, Gradients())
    assert taken == [True] * 3
    assert seen == ["hook", "closure"]
    assert int(optimizer.state[params[0]]["step"]) == 5


def test_a_grad_scaler_is_listened_to():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.SGD(params, lr=1.0)
    train(optimizer, params, 2, Gradients())
    before = params[0].detach().clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    params[0].grad = torch.full((4, 3), 4.0)
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert torch.equal(params[0], before - 1.0)
    scaler.update()
    with counted() as taken:
        train(optimizer, params, 1, Gradients())
    assert taken == [True]


def test_swapped_averages_are_not_stepped():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params, ema_decay=0.5)
    train(optimizer, params, 3, Gradients())
    before = snapshot(optimizer)
    with optimizer.swap_ema():
        for step in (optimizer.step, lambda: optimizer.step_param(params[0])):
            with pytest.raises(RuntimeError, match="swap_ema"):
                step()
    assert_same_bits(snapshot(optimizer), before)
    with counted() as taken:
        train(optimizer, params, 2, Gradients())
    assert taken[-1]
    assert int(optimizer.state[params[0]]["step"]) == 5


class Subclass(Tensor):
    pass


def negated(shape: tuple[int, ...]) -> Tensor:
    tensor = torch.full(shape, 1.0 + 2.0j).conj().imag
    assert tensor.is_neg()
    return tensor


@pytest.mark.parametrize("place", [0, 399])
@pytest.mark.parametrize("kind", ["subclass", "negated", "state of a subclass"])
def test_unusual_tensors(kind, place):
    """What C would take for something else is left to Python."""
    results = []
    for repeats in (True, False):
        params = [nn.Parameter(torch.ones(1)) for _ in range(400)]
        optimizer = optim.SGD(params, lr=1.0, momentum=0.5)
        train(optimizer, params, 2, Gradients())
        match kind:
            case "subclass":
                params[place].grad = params[place].grad.as_subclass(Subclass)
            case "negated":
                params[place].grad = negated((1,))
            case "state of a subclass":
                state = optimizer.state[params[place]]
                state["momentum_buffer"] = state["momentum_buffer"].as_subclass(Subclass)
        with counted(repeats=repeats) as taken:
            optimizer.step()
        assert not any(taken)
        results.append([param.detach().as_subclass(Tensor).clone() for param in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("place", [0, 399])
@pytest.mark.parametrize("kind", ["shape of a state", "sparse gradient", "overlap", "dtype of a gradient", "rate"])
def test_refusals_write_nothing(kind, place):
    params = make_params(shapes=MANY)
    optimizer = optim.AdamW(params)
    train(optimizer, params, 3, Gradients())
    state = optimizer.state[params[place]]
    match kind:
        case "shape of a state":
            state["exp_avg"] = torch.zeros(2)
        case "sparse gradient":
            params[place].grad = params[place].grad.to_sparse()
        case "overlap":
            state["exp_avg"] = state["exp_avg_sq"]
        case "dtype of a gradient":
            params[place].grad = None
            params[place].grad_dtype = None
            params[place].grad = torch.ones(params[place].shape, dtype=torch.float64)
        case "rate":
            optimizer.param_groups[0]["lr"] = -1.0
    before = snapshot(optimizer)
    versions = [param._version for param in params]
    with pytest.raises((RuntimeError, ValueError), match=r"adam_|AdamW|lr"):
        optimizer.step()
    assert_same_bits(snapshot(optimizer), before)
    assert [param._version for param in params] == versions


@pytest.mark.parametrize("count", [1, 400])
def test_versions_grow(count):
    params = make_params(shapes=MANY[:count])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    Gradients().fill(params)
    written = [[param, *optimizer.state[param].values()] for param in params]
    before = [[tensor._version for tensor in tensors] for tensors in written]
    gradients = [param.grad._version for param in params]
    with counted() as taken:
        optimizer.step()
    assert taken == [True]
    assert [[tensor._version for tensor in tensors[:3]] for tensors in written] == [[n + 1 for n in ns[:3]] for ns in before]
    assert all(tensors[3]._version > ns[3] for tensors, ns in zip(written, before, strict=True)), "the step counts"
    assert [param.grad._version for param in params] == gradients


def refer_to(optimizer: Any, grad: Tensor) -> Tensor:
    return grad


def test_nothing_is_kept_alive():
    """Gradients and states are let go of after each step, and all with the optimizer, also through a hook that refers to it."""
    params = make_params(shapes=[(4, 3)] * 3)
    optimizer = optim.AdamW(params)
    params[0].register_hook(partial(refer_to, optimizer))
    train(optimizer, params, 3, Gradients())
    states = [weakref.ref(value) for param in params for name, value in optimizer.state[param].items() if name != "step"]
    grads = [weakref.ref(param.grad) for param in params]
    for param in params:
        param.grad = None
        for name in ("exp_avg", "exp_avg_sq"):
            optimizer.state[param][name] = optimizer.state[param][name].clone()
    assert not any(reference() is not None for reference in (*states, *grads))
    with counted() as taken:
        train(optimizer, params, 1, Gradients())
    assert taken == [True]
    alive = [weakref.ref(optimizer), *map(weakref.ref, params)]
    del optimizer, params, param
    gc.collect()
    assert not any(reference() is not None for reference in alive)


def test_other_threads_may_let_go_meanwhile():
    """A gradient and a state that their owners drop while the kernels run live until the step is done."""
    param = nn.Parameter(torch.zeros(8_000_000))
    optimizer = optim.SGD([param], lr=1.0, momentum=0.5)
    for _ in range(2):
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert param[0] == -2.5
    param.grad = torch.ones_like(param)
    started = threading.Event()

    def step() -> None:
        started.set()
        optimizer.step()

    thread = threading.Thread(target=step)
    thread.start()
    started.wait()
    time.sleep(2e-3)
    param.grad = None
    optimizer.state[param] = {}
    thread.join()
    assert param.min() == param.max()
    assert float(param[0].detach()) in (-2.5, -4.25), "not stepped, or stepped whole"
