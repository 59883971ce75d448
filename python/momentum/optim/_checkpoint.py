"""Reads a saved optimizer state, of this package or of torch, and refuses what does not fit before anything changes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from momentum.enums import Residual
from momentum.optim import _sharding
from momentum.optim._launch import Settings
from momentum.optim._options import STATE_DTYPES, Group

if TYPE_CHECKING:
    from momentum.optim._base import FusedOptimizer

# torch's choice of implementation, which says nothing about the state.
TORCH_FLAGS = ("foreach", "fused", "capturable", "differentiable")


class _Target(NamedTuple):
    """A parameter of the optimizer that a saved state is for."""

    name: str
    param: Tensor
    settings: Settings


@torch.no_grad()
def read(optimizer: FusedOptimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` and ``param_groups`` of ``optimizer`` after loading ``saved``.

    Raises
    ------
    ValueError
        When ``saved`` does not fit. The message names the parameter by its place among all parameters.
    """
    groups = [_merge(optimizer, own, group) for own, group in _pairs(optimizer, saved["param_groups"])]
    targets: dict[Hashable, _Target] = {}
    ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
    for i, group in enumerate(groups):
        settings = optimizer.settings(group)
        for param in group["params"]:
            name = f"{type(optimizer).__name__}.load_state_dict: parameter {len(targets)} (group {i})"
            targets[next(ids)] = _Target(name, param, settings)
    state: defaultdict[Any, Any] = defaultdict(dict)
    for key, values in saved["state"].items():
        target = targets.get(key)
        if target is None:
            state[key] = values  # not a parameter's: kept as it is, as torch does
        elif values:
            state[target.param] = _read_state(target, values)
    return {"state": state, "param_groups": groups}


def _pairs(optimizer: FusedOptimizer, saved: list[Group]) -> Iterator[tuple[Group, Group]]:
    if len(saved) != len(optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__}.load_state_dict: {len(saved)} parameter groups were saved, "
            f"the optimizer has {len(optimizer.param_groups)}"
        )
    for i, (own, group) in enumerate(zip(optimizer.param_groups, saved, strict=True)):
        if len(own["params"]) != len(group["params"]):
            raise ValueError(
                f"{type(optimizer).__name__}.load_state_dict: group {i} was saved with {len(group['params'])} parameters "
                f"and has {len(own['params'])}"
            )
        yield own, group


def _merge(optimizer: FusedOptimizer, own: Group, saved: Group) -> Group:
    group = {k: deepcopy(v) for k, v in saved.items() if k not in TORCH_FLAGS and k != "params"}
    optimizer.adopt_torch_options(group, own)
    return own | group


def _read_state(target: _Target, values: dict[str, Any]) -> dict[str, Any]:
    """Return the state of one parameter, checked and on its device."""
    param, settings = target.param, target.settings
    rule = settings.rule
    values = {name: value for name, value in values.items() if value is not None}  # torch.optim.SGD without momentum
    known = {"step", "compensation", "master_param", "ema", *rule.states} | ({"scalars"} if rule.scalars else set())
    needed = {*settings.states} | ({"scalars"} if rule.scalars else set()) | ({"step"} if rule.counts else set())
    for name in sorted(values.keys() - known):
        raise ValueError(f"{target.name} has an unknown state {name!r}; expected {sorted(known)}")
    for name in sorted(needed - values.keys()):
        raise ValueError(f"{target.name} lacks the state {name!r}; was it saved by another optimizer?")
    state: dict[str, Any] = {}
    for name, value in values.items():
        if name == "step":
            state[name] = torch.tensor(_read_step(target, value), dtype=torch.float32, device=param.device)
        elif name == "scalars":
            _check(target, name, "shape", tuple(value.shape), (rule.scalars,))
            state[name] = value.to(param.device, torch.float32)
        else:
            state[name] = _read_tensor(target, name, value)
    state.setdefault("step", torch.tensor(1.0, device=param.device))  # a rule that does not count, past its first step
    return state


def _read_step(target: _Target, value: Any) -> float:
    step = _sharding.local(value)
    if isinstance(step, Tensor) and step.numel() != 1:
        raise ValueError(f"{target.name}: state 'step' has shape {tuple(step.shape)}, expected one number")
    if not math.isfinite(step) or step < 0:
        raise ValueError(f"{target.name}: state 'step' is {float(step)}, expected a number of steps")
    return float(step)


def _read_tensor(target: _Target, name: str, value: Any) -> Tensor:
    param, residual = target.param, target.settings.residual_of(target.param)
    if not isinstance(value, Tensor):
        raise ValueError(f"{target.name}: state {name!r} is a {type(value).__name__}, expected a tensor")
    _check(target, name, "layout", value.layout, torch.strided)
    _check(target, name, "shape", tuple(value.shape), tuple(param.shape))
    if name == "compensation" and residual == Residual.KAHAN:
        _check(target, name, "dtype", value.dtype, param.dtype)
    elif name == "master_param" and residual == Residual.MASTER:
        _check(target, name, "dtype", value.dtype, torch.float32)
    elif value.dtype not in STATE_DTYPES or (value.dtype == torch.float64 and param.dtype != torch.float64):
        raise ValueError(f"{target.name}: state {name!r} has dtype {value.dtype}, which a {param.dtype} parameter cannot have")
    _check(target, name, "placements", getattr(value, "placements", None), getattr(param, "placements", None))
    loaded = value.detach().to(param.device)
    if _strides(loaded) != _strides(param):  # saved from another memory format
        loaded = torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(loaded)
    return loaded


def _check(target: _Target, name: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{target.name}: state {name!r} has {what} {found}, expected {expected}")


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides that matter: those of dimensions with more than one element."""
    shard = _sharding.local(tensor)
    return [stride for stride, size in zip(shard.stride(), shard.shape, strict=True) if size != 1]
