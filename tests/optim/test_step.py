"""What surrounds a step: closures, hooks, autograd's bookkeeping, compilation, profiling; and that it learns."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from momentum import optim
from optim.cases import CASES, CLASSES, Gradients, make_params, train


@pytest.mark.parametrize("name", CASES)
def test_learns(name):
    """A small network fits a smooth function better than half as badly as at first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.rand(64, 2)
    y = (x[:, :1] * 3).sin() + x[:, 1:]
    rates = {"SGD": 0.1, "SGD-momentum": 0.05, "SCALE": 0.003, "Lion-l2": 0.03, "NormalizedSGD": 0.03, "AMSGD": 0.1}
    rate = rates.get(name, 0.01)
    options = {"maximize": False} if CASES[name].twin else {}
    optimizer = CASES[name].make(model.parameters(), lr=rate, weight_decay=0.0, **options)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_closure():
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([param])

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert not torch.equal(param, torch.ones(3))


def test_step_hooks():
    seen = []
    params = make_params()
    optimizer = optim.AdamW(params)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    train(optimizer, params, 1, Gradients())
    assert seen == ["before", "after"]


def test_global_step_hooks():
    seen = []
    params = make_params()
    optimizer = optim.AdamW(params)
    before = register_optimizer_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    after = register_optimizer_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    try:
        train(optimizer, params, 1, Gradients())
    finally:
        before.remove()
        after.remove()
    train(optimizer, params, 1, Gradients())
    assert seen == ["before", "after"]


def test_a_hook_may_change_the_arguments():
    param = nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = optim.AdamW([param])
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: (args, {"closure": lambda: 7.0}))
    assert optimizer.step() == 7.0
    handle.remove()
    assert optimizer.step() is None


def test_profiler_sees_the_step():
    params = make_params()
    optimizer = optim.AdamW(params)
    with torch.profiler.profile() as profile:
        train(optimizer, params, 1, Gradients())
    assert any(event.key == "Optimizer.step#AdamW.step" for event in profile.key_averages())


def test_parameter_saved_for_backward_is_noticed():
    """A step between forward and backward changes what backward needs; autograd must say so."""
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([param])
    loss = param.square().sum()
    param.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_versions_of_all_written_tensors_grow():
    params = make_params(torch.bfloat16)
    optimizer = optim.AdamW(params, ema_decay=0.5, compensation="kahan")
    train(optimizer, params, 1, Gradients())
    written = [*params, *(value for state in optimizer.state.values() for value in state.values())]
    before = [tensor._version for tensor in written]
    grads = [p.grad for p in params]
    grad_versions = [grad._version for grad in grads]
    optimizer.step()
    assert all(tensor._version > version for tensor, version in zip(written, before, strict=True))
    assert [grad._version for grad in grads] == grad_versions


@pytest.mark.parametrize("name", CLASSES)
def test_compiled_step_falls_back(name):
    params, twins = make_params(), make_params()
    optimizer, plain = CASES[name].make(params), CASES[name].make(twins)
    step = torch.compile(optimizer.step, backend="eager")
    ours, theirs = Gradients(), Gradients()
    for _ in range(3):
        ours.fill(params)
        step()
        train(plain, twins, 1, theirs)
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_with_a_graph(name, monkeypatch):
    """Nothing of a step is recorded, what a class does before the op either."""
    seen = []
    params = make_params()
    optimizer = CASES[name].make(params)
    advance = type(optimizer)._advance

    def watched(self: Any, param: Tensor | None) -> None:
        seen.append(torch.is_grad_enabled())
        advance(self, param)

    monkeypatch.setattr(type(optimizer), "_advance", watched)
    Gradients().fill(params)
    weight = torch.ones((), requires_grad=True)
    for p in params:
        p.grad = p.grad * weight
    optimizer.step()
    assert seen == [False]
    assert torch.is_grad_enabled()
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    assert not any(t.requires_grad for t in tensors)


def test_inference_tensors_are_stepped_in_inference_mode():
    with torch.inference_mode():
        param = torch.ones(3)
        param.grad = torch.ones(3)
        optimizer = optim.AdamW([param])
        optimizer.step()
        assert not torch.equal(param, torch.ones(3))


def test_zero_grad():
    params = make_params()
    optimizer = optim.AdamW(params)
    Gradients().fill(params)
    optimizer.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


def test_repr_names_class_and_options():
    text = repr(optim.AdamW(make_params(), lr=0.25))
    assert text.startswith("AdamW (")
    assert "lr: 0.25" in text


def test_step_count_can_be_written_in_place():
    params = make_params()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 1, Gradients())
    for p in params:
        optimizer.state[p]["step"].fill_(9)
    train(optimizer, params, 1, Gradients())
    assert all(int(optimizer.state[p]["step"]) == 10 for p in params)


def test_scale_groups_of_a_language_model():
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(11, 4),
            "norm": nn.LayerNorm(4),
            "hidden": nn.Linear(4, 4),
            "conv": nn.Conv1d(4, 4, 3),
            "head": nn.Linear(4, 11),
        }
    )
    groups = {group["name"]: group for group in optim.scale_groups(model, adam_lr=0.5)}
    assert [p is model["embed"].weight for p in groups["column"]["params"]] == [True]
    assert [p is model["head"].weight for p in groups["last"]["params"]] == [True]
    assert {id(p) for p in groups["row"]["params"]} == {id(model["hidden"].weight), id(model["conv"].weight)}
    assert len(groups["adamw"]["params"]) == 5
    optimizer = optim.SCALE(list(groups.values()), lr=0.1)
    rates = {group["name"]: (group["lr"], group["momentum"], group["normalize"]) for group in optimizer.param_groups}
    assert rates["last"] == (0.1, 0.9, "row")
    assert rates["column"] == (0.1, 0.0, "column")
    assert rates["adamw"][0] == 0.5


def test_scale_groups_of_tied_weights():
    """A weight that is both embedding and last layer is taken as the embedding, once."""
    model = nn.ModuleList([nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)])
    model[1].weight = model[0].weight
    groups = optim.scale_groups(model)
    assert [(group["name"], len(group["params"])) for group in groups] == [("column", 1)]


MODULES = [f"momentum.optim.{module.name}" for module in pkgutil.iter_modules(optim.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted or module.rsplit(".", 1)[1].startswith("_")
