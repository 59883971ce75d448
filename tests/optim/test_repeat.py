"""Steps that are repeated without Python: the same bits as any other step, and none where something is not as it was.

What users may edit between two steps is in test_stale.py, whose second step is a repeated one.
"""

from __future__ import annotations

import copy
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from momentum import _direct, optim
from momentum.optim._plan import Plan
from optim.cases import CASES, Gradients, assert_same_bits, make_params, params_of, snapshot, train

BY_PARTS = {"NormalizedSGD-all", "Adan-clipped"}
"""What completes totals in the middle of a step, or scales gradients by a tensor made for it."""
MANY = [(i % 5 + 1, 3) for i in range(400)]
"""Enough for threads to share the reading."""


@contextmanager
def counted() -> Iterator[list[bool]]:
    """Note for each attempt inside the ``with`` block whether a step was repeated."""
    taken: list[bool] = []
    repeat = Plan.repeat

    def noted(plan: Plan, optimizer: Any) -> bool:
        taken.append(repeat(plan, optimizer))
        return taken[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "repeat", noted)
        yield taken


def trained(make: Callable[[list[nn.Parameter]], Any], shapes: list[tuple[int, ...]], *, repeats: bool) -> dict[str, Tensor]:
    """Return what four steps lead to."""
    params = make_params(shapes=shapes)
    optimizer = make(params)
    with ExitStack() as stack, counted() as taken:
        if not repeats:
            stack.enter_context(_direct.disabled())
        train(optimizer, params, 4, Gradients())
    assert any(taken) == repeats, taken
    return snapshot(optimizer)


@pytest.mark.parametrize("name", [name for name in CASES if name not in BY_PARTS])
def test_same_bits(name):
    make, shapes = CASES[name].make, [(7, 5), (33,), (), (3, 2, 2), (1,)]
    assert_same_bits(trained(make, shapes, repeats=True), trained(make, shapes, repeats=False))


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
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
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
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
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


class Dispatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("watcher", ["dispatch mode", "function mode", "profiler"])
def test_watchers_see_the_op(watcher):
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    watching: Any = {
        "dispatch mode": Dispatch,
        "function mode": Functions,
        "profiler": lambda: torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
    }[watcher]()
    with counted() as taken:
        with watching:
            train(optimizer, params, 1, Gradients())
        assert not any(taken)
        train(optimizer, params, 1, Gradients())
        assert taken[-1]
    if watcher == "dispatch mode":
        assert "momentum::adam_" in watching.names
    if watcher == "profiler":
        assert "momentum::adam_" in [event.name for event in watching.events()]
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
    with optimizer.swap_ema(), pytest.raises(RuntimeError, match="swap_ema"):
        optimizer.step()
    train(optimizer, params, 1, Gradients())


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
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
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
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
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
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
            for _ in range(3):
                torch.stack([param.square().sum() for param in params]).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        assert sum(taken) == 2 * repeats
        results.append(snapshot(optimizer))
    assert_same_bits(*results)


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


def test_copies_start_anew():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 3, Gradients())
    twin = copy.deepcopy(optimizer)
    for one in (optimizer, twin):
        train(one, params_of(one), 2, Gradients(5))
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize("make", [lambda p: optim.SPAM(p, density=0.25), lambda p: optim.FRUGAL(p, density=0.25)])
def test_same_bits_on_a_share_of_the_entries(make):
    shapes = [(8, 16), (33,), (6, 40)]
    assert_same_bits(trained(make, shapes, repeats=True), trained(make, shapes, repeats=False))


@pytest.mark.parametrize("edit", ["none", "rate", "state", "order", "other group"])
def test_single_parameters(edit):
    results = []
    for repeats in (True, False):
        params = make_params(shapes=[(4, 3), (5,), (2, 2)])
        optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.5}], lr=0.1)
        gradients = Gradients()
        with ExitStack() as stack, counted() as taken:
            if not repeats:
                stack.enter_context(_direct.disabled())
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
