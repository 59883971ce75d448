"""Comparisons of many objects, in C and without it."""

from __future__ import annotations

import functools
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


class Subclass(Tensor):
    pass


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
    of_type, of_tensor = _native._places()
    for tensor in (torch.zeros(7), nn.Parameter(torch.zeros(1)), torch.zeros(2)[0]):
        assert _native._place(tensor, Tensor.__basicsize__, tensor._cdata) == of_tensor
        assert _native._place(tensor, Tensor.__basicsize__, id(type(tensor))) == of_type
    assert _native._place(torch.zeros(7), Tensor.__basicsize__, 1) is None


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
