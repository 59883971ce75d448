"""Questions about many objects, in C and without it."""

from __future__ import annotations

import functools
import gc
import weakref
from collections import defaultdict

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


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_are_elements(dtype):
    whole = torch.arange(40, dtype=dtype)
    views = list(whole.unbind())
    assert _objects.are_elements(views, whole)
    assert _objects.are_elements(views[:7], whole)
    assert _objects.are_elements([], whole)
    assert not _objects.are_elements([*views[:3], views[4]], whole)
    assert not _objects.are_elements([*views[:3], views[3].clone()], whole)
    views[5].data = torch.zeros((), dtype=dtype)
    assert not _objects.are_elements(views, whole)
    assert _objects.are_elements([nn.Parameter(whole[0])], whole)


@pytest.mark.usefixtures("way")
def test_values():
    dicts = [{"a": torch.zeros(2), "b": 1.0}, defaultdict(list, a="text", b=None)]
    assert [value is items["a"] for value, items in zip(_objects.values(dicts, "a"), dicts, strict=True)] == [True, True]
    assert _objects.values(dicts, "b") == [1.0, None]
    assert _objects.values([], "a") == []
    for broken in ([*dicts, {"b": 2}], [{}]):
        with pytest.raises(KeyError):
            _objects.values(broken, "a")


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


@pytest.mark.usefixtures("way")
def test_elements_of_other_kinds():
    whole = torch.zeros(2)
    assert _objects.are_elements([whole[0].as_subclass(Subclass)], whole)
    with pytest.raises(AttributeError):
        _objects.are_elements([0.0], whole)


@pytest.mark.usefixtures("way")
def test_anything_can_be_fetched():
    """A hint changes nothing, whatever it is given."""
    tensors = [torch.ones(3), nn.Parameter(torch.ones(2)), torch.ones(3).to_sparse(), torch.ones(3, device="meta")]
    for items in ([], tensors * 20, [{}, {"a": tensors[0]}, {i: i for i in range(100)}] * 20, [None, 1, "a", [], Odd()] * 20):
        _objects.fetch(items)
    assert torch.equal(tensors[0], torch.ones(3))


def test_places_are_found():
    """Where the objects' words are is the same for any tensor, and is not found where a word is missing."""
    of_type, of_tensor, of_object = _native._places()
    for tensor in (torch.zeros(7), nn.Parameter(torch.zeros(1)), torch.zeros(2)[0]):
        assert _native._place(id(tensor), Tensor.__basicsize__, tensor._cdata) == of_tensor
        assert _native._place(id(tensor), Tensor.__basicsize__, id(type(tensor))) == of_type
        assert _native._place(tensor._cdata, of_object + 8, id(tensor)) == of_object
        assert _native._place(id(tensor), Tensor.__basicsize__, 8) is None


def test_nothing_is_opened_without_places(monkeypatch):
    monkeypatch.setattr(_native, "_places", lambda: None)
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
