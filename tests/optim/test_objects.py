"""Questions about many objects, in C and without it."""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from momentum import _direct, _native, _objects, optim


@pytest.fixture(params=["in C", "in Python"])
def way(request, monkeypatch):
    if request.param == "in Python":
        monkeypatch.setattr(_native, "library", lambda *_: None)
    else:
        assert _native.library() is not None


class Odd(list):
    pass


class Subclass(Tensor):
    pass


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", [list, tuple, Odd])
def test_same_items(kind):
    tensors = [torch.zeros(2) for _ in range(3)]
    assert _objects.same_items(kind(tensors), tensors)
    assert _objects.same_items(kind(), [])
    assert not _objects.same_items(kind(tensors[:2]), tensors)
    assert not _objects.same_items(kind(reversed(tensors)), tensors)
    assert not _objects.same_items(kind([*tensors[:2], torch.zeros(2)]), tensors), "equal is not the same"


@pytest.mark.usefixtures("way")
def test_same_entries():
    keys, values = [torch.zeros(2) for _ in range(3)], [{}, {}, {}]
    state = defaultdict(dict, zip(keys, values, strict=True))
    assert _objects.same_entries(state, keys, values)
    assert not _objects.same_entries(state, keys[:2], values[:2])
    assert not _objects.same_entries(state, keys[::-1], values[::-1])
    assert not _objects.same_entries(state, keys, [{}, *values[1:]])
    del state[keys[0]]
    state[keys[0]] = values[0]
    assert not _objects.same_entries(state, keys, values), "the order counts"
    assert _objects.same_entries(state, [*keys[1:], keys[0]], [*values[1:], values[0]])


def dictionaries(steps: Tensor) -> list[dict[str, Any]]:
    """Return states whose step counts are the elements of ``steps`` but the last."""
    return [{"step": step, "a": torch.zeros(2), "b": float(i)} for i, step in enumerate(steps.unbind()[:-1])]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", [dict, functools.partial(defaultdict, list)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_states(kind, count):
    steps, default = torch.arange(count + 1.0), torch.zeros(0)
    dicts = [kind(items) for items in dictionaries(steps)]
    if dicts:
        dicts[-1]["scale"] = 7
    found = _objects.states(dicts, ["step", "b", "a", "scale"], [None, None, None, default], steps)
    assert found[0] == [float(i) for i in range(count)]
    assert all(value is items["a"] for value, items in zip(found[1], dicts, strict=True))
    assert found[2] == [default] * (count - 1) + [7] * bool(count)
    assert _objects.states(dicts, ["step"], [None], steps) == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_with_other_steps(dtype):
    steps = torch.arange(9, dtype=dtype)
    dicts = dictionaries(steps)

    def read(dicts: list[dict[str, Any]]) -> list[list[Any]] | None:
        return _objects.states(dicts, ["step", "a"], [None, None], steps)

    assert len(read(dicts)[0]) == 8
    assert len(read(dicts[:5])[0]) == 5
    assert read(dicts[1:]) is None
    assert read(dicts[::-1]) is None
    for other in (steps[3].clone(), steps[4], torch.zeros((), dtype=dtype)):
        assert read([*dicts[:3], dicts[3] | {"step": other}, *dicts[4:]]) is None
    assert len(read([{"step": nn.Parameter(steps[0]), "a": 1}])[0]) == 1
    assert len(read([{"step": steps[0].as_subclass(Subclass), "a": 1}])[0]) == 1
    dicts[5]["step"].data = torch.zeros((), dtype=dtype)
    assert read(dicts) is None


@pytest.mark.usefixtures("way")
def test_states_that_are_missing():
    steps = torch.zeros(9)
    for place in (0, 7):
        dicts = dictionaries(steps)
        del dicts[place]["a"]
        with pytest.raises(KeyError, match="a"):
            _objects.states(dicts, ["step", "a"], [None, None], steps)
        del dicts[place]["step"]
        with pytest.raises(KeyError, match="step"):
            _objects.states(dicts, ["step"], [None], steps)
        dicts[place]["step"] = 0.0
        with pytest.raises(AttributeError):
            _objects.states(dicts, ["step"], [None], steps)


def test_states_are_not_leaked():
    steps = torch.zeros(3)
    dicts = dictionaries(steps)
    alive = [weakref.ref(items["a"]) for items in dicts]
    assert _objects.states(dicts, ["step", "a"], [None, None], steps)
    del dicts[1]["b"]
    with pytest.raises(KeyError):
        _objects.states(dicts, ["step", "a", "b"], [None, None, None], steps)
    del dicts
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def parameters(count: int) -> list[nn.Parameter]:
    """Return parameters with gradients that no one has looked at."""
    params = [nn.Parameter(torch.full((i % 3 + 1,), float(i))) for i in range(count)]
    torch.stack([param.square().sum() for param in params]).sum().backward()
    return params


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count", [0, 1, 7, 400])
def test_gradients(count):
    params = parameters(count) if count else []
    grads = _objects.gradients(params)
    assert len(grads) == count
    assert all(grad is param.grad for grad, param in zip(grads, params, strict=True))
    assert [grad.tolist() for grad in grads] == [(2 * param).tolist() for param in params]
    for place in {0, count // 2, count - 1} if count else ():
        kept, params[place].grad = params[place].grad, None
        assert _objects.gradients(params) is None
        params[place].grad = kept


def test_gradients_are_held_in_c():
    assert isinstance(_objects.gradients(parameters(3)), _objects.Gradients)


def negated() -> Tensor:
    tensor = torch.tensor([1.0 + 2.0j]).conj().imag
    assert tensor.is_neg()
    return tensor


@pytest.mark.parametrize("place", [0, 399])
@pytest.mark.parametrize("kind", ["param", "grad", "negated"])
def test_unusual_gradients_are_listed(kind, place):
    """Where a subclass or a lazy negation would be overlooked, Python's objects are handed on."""
    params = [nn.Parameter(torch.zeros(1)) for _ in range(400)]
    for param in params:
        param.grad = torch.ones(1)
    match kind:
        case "param":
            params[place] = torch.zeros(1).as_subclass(Subclass)
            params[place].grad = torch.ones(1)
        case "grad":
            params[place].grad = torch.ones(1).as_subclass(Subclass)
        case "negated":
            params[place].grad = negated()
    grads = _objects.gradients(params)
    assert isinstance(grads, list)
    assert all(grad is param.grad for grad, param in zip(grads, params, strict=True))


def test_gradients_live_as_long_as_they_are_held():
    params = parameters(3)
    alive = [weakref.ref(param.grad) for param in params]
    grads = _objects.gradients(params)
    for param in params:
        param.grad = None
    gc.collect()
    assert all(reference() is not None for reference in alive)
    del grads
    assert all(reference() is None for reference in alive)


def test_places_are_found():
    """Where the objects' words are is the same for any tensor, and is not found where a word is missing."""
    of_type, of_tensor, of_object = _native._places()
    for tensor in (torch.zeros(7), nn.Parameter(torch.zeros(1)), torch.zeros(2)[0]):
        assert _native._place(id(tensor), Tensor.__basicsize__, tensor._cdata) == of_tensor
        assert _native._place(id(tensor), Tensor.__basicsize__, id(type(tensor))) == of_type
        assert _native._place(tensor._cdata, of_object + 8, id(tensor)) == of_object
        assert _native._place(id(tensor), Tensor.__basicsize__, 8) is None


@pytest.mark.parametrize("missing", ["places", "a lock"])
def test_nothing_is_opened_without(monkeypatch, missing):
    if missing == "places":
        monkeypatch.setattr(_native, "_places", lambda: None)
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(_native, "library", functools.cache(_native.library.__wrapped__))
    monkeypatch.setattr(_direct, "_entry", functools.cache(_direct._entry.__wrapped__))
    assert _native.library() is None
    assert _direct._entry("momentum", "cpu", "adam") is None
    param = nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = optim.AdamW([param])
    optimizer.step()
    optimizer.step()
    assert optimizer.state[param]["step"] == 2.0
