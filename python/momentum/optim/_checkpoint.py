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
from momentum.optim import _formats, _sharding
from momentum.optim._launch import Settings
from momentum.optim._options import FORMAT, SCALE, STATE_DTYPES, Group
from momentum.optim._states import replace_state
from momentum.quant.formats import StateFormat

if TYPE_CHECKING:
    from momentum.optim._base import FusedOptimizer

# torch's choice of implementation, which says nothing about the state.
TORCH_FLAGS = ("foreach", "fused", "capturable", "differentiable")

# How states are stored is the loading optimizer's to say: what was saved is converted.
OWN_OPTIONS = ("state_format", "quantize_min_numel", "full_precision")


class Target(NamedTuple):
    """A parameter of the optimizer that a saved state is for."""

    name: str
    param: Tensor
    settings: Settings
    group: Group
    place: int


@torch.no_grad()
def read(optimizer: FusedOptimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` and ``param_groups`` of ``optimizer`` after loading ``saved``.

    Raises
    ------
    ValueError
        When ``saved`` does not fit. The message names the parameter by its place among all parameters.
    """
    groups = [_merge(optimizer, own, group) for own, group in _pairs(optimizer, saved["param_groups"])]
    targets: dict[Hashable, Target] = {}
    ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
    for i, group in enumerate(groups):
        settings = optimizer.settings(group)
        for place, param in enumerate(group["params"]):
            name = f"{type(optimizer).__name__}.load_state_dict: parameter {len(targets)} (group {i})"
            targets[next(ids)] = Target(name, param, settings, group, place)
    state: defaultdict[Any, Any] = defaultdict(dict)
    for key, values in saved["state"].items():
        target = targets.get(key)
        if target is None:
            state[key] = values  # not a parameter's: kept as it is, as torch does
        elif values:
            state[target.param] = optimizer.read_state(target, values)
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
    kept = (*TORCH_FLAGS, *OWN_OPTIONS, "params")
    group = {k: deepcopy(v) for k, v in saved.items() if k not in kept}
    optimizer.adopt_torch_options(group, own)
    return own | group


def read_state(target: Target, values: dict[str, Any]) -> dict[str, Any]:
    """Return the state of one parameter, checked and on its device."""
    param, settings = target.param, target.settings
    rule = settings.rule
    values = {name: value for name, value in values.items() if value is not None}  # torch.optim.SGD without momentum
    known = {"step", "compensation", "master_param", "low_bits", "ema", *rule.states} | ({"scalars"} if rule.scalars else set())
    known |= {name + part for name in rule.states for part in (SCALE, FORMAT)}
    needed = {*settings.states} | ({"scalars"} if rule.scalars else set()) | ({"step"} if rule.counts else set())
    for name in sorted(values.keys() - known):
        raise ValueError(f"{target.name} has an unknown state {name!r}; expected {sorted(known)}")
    for name in sorted(needed - values.keys()):
        raise ValueError(f"{target.name} lacks the state {name!r}; was it saved by another optimizer?")
    state: dict[str, Any] = {}
    for name, value in values.items():
        if name == "step":
            state[name] = torch.tensor(read_step(target, value), dtype=torch.float32, device=param.device)
        elif name == "scalars":
            _check(target, name, "shape", tuple(value.shape), (rule.scalars,))
            state[name] = value.to(param.device, torch.float32)
        elif name in rule.states and name + FORMAT in values:
            state |= _read_codes(target, name, values)
        elif not name.endswith((SCALE, FORMAT)):
            state[name] = _read_tensor(target, name, value)
    for name in rule.states:
        if name in state:
            _convert(target, state, name)
    state.setdefault("step", torch.tensor(1.0, device=param.device))  # a rule that does not count, past its first step
    return state


def read_step(target: Target, value: Any) -> float:
    step = _sharding.local(value)
    if isinstance(step, Tensor) and step.numel() != 1:
        raise ValueError(f"{target.name}: state 'step' has shape {tuple(step.shape)}, expected one number")
    if not math.isfinite(step) or step < 0:
        raise ValueError(f"{target.name}: state 'step' is {float(step)}, expected a number of steps")
    return float(step)


def _read_tensor(target: Target, name: str, value: Any) -> Tensor:
    param, residual = target.param, target.settings.residual_of(target.param)
    if not isinstance(value, Tensor):
        raise ValueError(f"{target.name}: state {name!r} is a {type(value).__name__}, expected a tensor")
    _check(target, name, "layout", value.layout, torch.strided)
    _check(target, name, "shape", tuple(value.shape), tuple(param.shape))
    if name == "compensation" and residual == Residual.KAHAN:
        _check(target, name, "dtype", value.dtype, param.dtype)
    elif name == "low_bits" and residual == Residual.LOW_BITS:
        _check(target, name, "dtype", value.dtype, torch.int8)
    elif name == "master_param" and residual == Residual.MASTER:
        _check(target, name, "dtype", value.dtype, torch.float32)
    elif value.dtype not in STATE_DTYPES or (value.dtype == torch.float64 and param.dtype != torch.float64):
        raise ValueError(f"{target.name}: state {name!r} has dtype {value.dtype}, which a {param.dtype} parameter cannot have")
    _check(target, name, "placements", getattr(value, "placements", None), getattr(param, "placements", None))
    loaded = value.detach().to(param.device)
    if _strides(loaded) != _strides(param):  # saved from another memory format
        loaded = torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(loaded)
    return loaded


def _read_codes(target: Target, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a quantised state, checked and on the parameter's device."""
    param = target.param
    parts = [name, name + SCALE, name + FORMAT]
    for part in parts:
        if not isinstance(values.get(part), Tensor):
            raise ValueError(f"{target.name}: state {name!r} is quantised and lacks the tensor {part!r}")
    codes, scales, numbers = (values[part].detach() for part in parts)
    described = numbers.tolist()
    if numbers.shape != (3 + param.dim(),) or sorted(described[3:]) != list(range(param.dim())):
        raise ValueError(
            f"{target.name}: state {name + FORMAT!r} is {described}, expected a map, a block, a scaling and an order of "
            f"{param.dim()} dimensions"
        )
    try:
        chosen = StateFormat.from_stored(described[:3], scales.dtype)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{target.name}: state {name + FORMAT!r} is {described}: {error}") from None
    numel = param.numel()
    _check(target, name, "dtype", codes.dtype, torch.uint8)
    _check(target, name, "shape", tuple(codes.shape), (chosen.code_bytes(numel),))
    _check(target, name + SCALE, "shape", tuple(scales.shape), (chosen.scale_count(_shape_in_memory(param, described[3:])),))
    for tensor in (codes, scales):
        _check(target, name, "placements", getattr(tensor, "placements", None), getattr(param, "placements", None))
    return {name: codes.to(param.device), name + SCALE: scales.to(param.device), name + FORMAT: numbers.cpu()}


def _shape_in_memory(param: Tensor, order: list[int]) -> list[int]:
    return [param.shape[d] for d in order]


def _convert(target: Target, state: dict[str, Any], name: str) -> None:
    """Bring a loaded state into the format that the optimizer keeps it in, where one of the two is quantised."""
    param = target.param
    wanted = _formats.format_of(target.group, target.settings.rule, name, param, target.place)
    stored = _formats.stored_format(state, name)
    same = isinstance(stored, StateFormat) and isinstance(wanted, StateFormat) and stored.same_storage(wanted)
    if not isinstance(stored, StateFormat) and not isinstance(wanted, StateFormat):
        return
    moved = same and state[name + FORMAT].tolist()[3:] != _formats.memory_order(_sharding.local(param))
    if not same or moved:
        replace_state(state, name, _formats.convert(state, param, name, wanted))


def _check(target: Target, name: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{target.name}: state {name!r} has {what} {found}, expected {expected}")


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides that matter: those of dimensions with more than one element."""
    shard = _sharding.local(tensor)
    return [stride for stride, size in zip(shard.stride(), shard.shape, strict=True) if size != 1]
