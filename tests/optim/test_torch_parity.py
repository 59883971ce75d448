"""The classes named as torch's do what torch's do, to rounding."""

from __future__ import annotations

import inspect

import pytest
import torch

from momentum import optim
from optim.cases import CASES, TWINS, Gradients, make_params, train
from tolerances import UNIT

STEPS = 25


def path(make, dtype, **options):
    params = make_params(dtype)
    optimizer = make(params, lr=0.01, **options)
    train(optimizer, params, STEPS, Gradients())
    return [p.detach().double() for p in params]


def largest(values):
    return values.abs().max().item() if values.numel() else 0.0


def errors(found, exact):
    return [largest(a - b) for a, b in zip(found, exact, strict=True)]


def store_error(exact, dtype):
    """Return what storing the parameter at every step may add, by tensor: half an ulp of its largest value each time."""
    sizes = [max(largest(start), largest(end)) for start, end in zip(make_params(), exact, strict=True)]
    return [STEPS * UNIT[dtype] * size for size in sizes]


@pytest.mark.parametrize("name", TWINS)
def test_float32_is_as_close_to_exact_as_torch(name):
    """Two ways of rounding the same formula: ours may be off by as much as torch's own for-loop in float32."""
    case = CASES[name]
    exact = path(case.twin, torch.float64, foreach=False)
    ours = errors(path(case.make, torch.float32), exact)
    theirs = errors(path(case.twin, torch.float32, foreach=False), exact)
    for our, their, stored in zip(ours, theirs, store_error(exact, torch.float32), strict=True):
        assert our <= 2 * their + stored


@pytest.mark.parametrize("name", TWINS)
def test_float64_agrees_to_its_rounding(name):
    """What rounding moves a float64 run by is 2^-29 of what it moves a float32 run by; here it moves both runs."""
    case = CASES[name]
    exact = path(case.twin, torch.float64, foreach=False)
    ours = errors(path(case.make, torch.float64), exact)
    in_float32 = errors(path(case.twin, torch.float32, foreach=False), exact)
    for our, their, stored in zip(ours, in_float32, store_error(exact, torch.float64), strict=True):
        assert our <= 2 * (2 * their * UNIT[torch.float64] / UNIT[torch.float32] + stored)


@pytest.mark.parametrize("name", TWINS)
def test_signature_has_torch_names(name):
    """Every argument of torch's class is accepted under its name and, where torch allows it, at its place."""
    base = name.split("-")[0]
    theirs = inspect.signature(getattr(torch.optim, base)).parameters
    ours = inspect.signature(getattr(optim, base)).parameters
    common = optim.CommonOptions.__annotations__
    positional = [p.name for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == positional
    for parameter in theirs.values():
        assert parameter.name in ours or parameter.name in common
        if parameter.name in ours and parameter.default is not parameter.empty:
            assert ours[parameter.name].default == parameter.default
