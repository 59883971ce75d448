"""In which format a state is kept, and how it gets there from another one.

A quantised state ``name`` of a parameter is three entries of its state: the codes under ``name`` itself (uint8, flat), the
scales under ``name_scale``, and under ``name_format`` a few int64 on the CPU that say what they mean: code map, elements per
block, what shares a scale, and the dimensions of the parameter in the order of its memory. Nothing else is needed to read it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentum import _ops
from momentum.optim import _sharding
from momentum.optim._options import FLOAT_FORMATS, FORMAT, SCALE, Group
from momentum.optim._rule import Rule
from momentum.quant.formats import FORMATS, StateFormat


def wanted_format(group: Group, rule: Rule, name: str) -> torch.dtype | StateFormat | None:
    """Return what the options of ``group`` say about state ``name``; None where they leave it to the parameter."""
    chosen = group["state_format"]
    if isinstance(chosen, dict):
        chosen = chosen.get(name)
    if isinstance(chosen, str):
        chosen = FORMATS[chosen][name in rule.non_negative] if chosen in FORMATS else FLOAT_FORMATS[chosen]
    if name == "ema" and isinstance(chosen, StateFormat):
        return None
    return chosen  # type: ignore[no-any-return]


def quantised_formats(group: Group, rule: Rule) -> tuple[StateFormat | None, ...]:
    """Return, for each of the rule's states, how ``group`` quantises it."""
    formats = (wanted_format(group, rule, name) for name in rule.states)
    return tuple(f if isinstance(f, StateFormat) else None for f in formats)


def format_of(group: Group, rule: Rule, name: str, param: Tensor, place: int) -> torch.dtype | StateFormat:
    """Return the format in which state ``name`` of ``param``, at ``place`` in ``group``, is kept when it is new."""
    chosen = wanted_format(group, rule, name)
    if isinstance(chosen, StateFormat) and not _may_quantise(group, chosen, param, place):
        chosen = None
    if chosen is not None:
        return chosen
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _may_quantise(group: Group, chosen: StateFormat, param: Tensor, place: int) -> bool:
    if param.dtype == torch.float64 or param.numel() < group["quantize_min_numel"]:
        return False
    if is_exception(group, place):
        return False
    if chosen.has_matrix_scales(param.shape):
        return not _sharding.is_sharded(param) and param.is_contiguous()
    return _sharding.splits_into(param, chosen.block)


def is_exception(group: Group, place: int) -> bool:
    """Return whether the parameter at ``place`` in ``group`` keeps its states in full precision."""
    from fnmatch import fnmatchcase

    names = group.get("param_names")
    return any(
        rule == place if isinstance(rule, int) else names is not None and fnmatchcase(names[place], rule)
        for rule in group["full_precision"]
    )


def zeros(param: Tensor, name: str, wanted: torch.dtype | StateFormat) -> dict[str, Tensor]:
    """Return the entries of a new state."""
    if isinstance(wanted, torch.dtype):
        return {name: torch.zeros_like(param, dtype=wanted, requires_grad=False)}
    shard = _sharding.local(param)
    codes = torch.zeros(wanted.code_bytes(shard.numel()), dtype=torch.uint8, device=param.device)
    scales = torch.zeros(wanted.scale_count(shard.shape), dtype=wanted.scale_dtype, device=param.device)
    return _entries(param, name, wanted, codes, scales)


def is_quantised(state: dict[str, Any], name: str) -> bool:
    """Return whether state ``name`` is stored as codes."""
    return name + FORMAT in state


def stored_format(state: dict[str, Any], name: str) -> torch.dtype | StateFormat:
    """Return the format in which state ``name`` is."""
    if not is_quantised(state, name):
        return state[name].dtype  # type: ignore[no-any-return]
    return StateFormat.from_stored(state[name + FORMAT].tolist()[:3], state[name + SCALE].dtype)


def convert(state: dict[str, Any], param: Tensor, name: str, wanted: torch.dtype | StateFormat) -> dict[str, Tensor]:
    """Return the entries of state ``name`` of ``param`` in another format.

    At most one copy of the state in float32 exists in between; two where the elements also move to another order in memory.
    """
    values = dequantised(state, param, name) if is_quantised(state, name) else state[name]
    if isinstance(wanted, torch.dtype):
        return {name: values.to(wanted)}
    stored = in_memory_order(_sharding.local(values).to(torch.float32))
    codes = torch.empty(wanted.code_bytes(stored.numel()), dtype=torch.uint8, device=param.device)
    scales = torch.empty(wanted.scale_count(stored.shape), dtype=wanted.scale_dtype, device=param.device)
    code_map, block, scaling = wanted.stored_numbers()
    _ops.call("quantize_", stored, codes, scales, map=code_map, block=block, scaling=scaling)
    return _entries(param, name, wanted, codes, scales)


def dequantised(state: dict[str, Any], param: Tensor, name: str) -> Tensor:
    """Return a quantised state in float32, with the shape, strides and placements of ``param``."""
    code_map, block, scaling, *order = state[name + FORMAT].tolist()
    shard = _sharding.local(param)
    shape = [shard.shape[d] for d in order]
    stored = torch.empty(shape, dtype=torch.float32, device=param.device)
    codes, scales = _sharding.local(state[name]), _sharding.local(state[name + SCALE])
    _ops.call("dequantize_", codes, scales, stored, map=code_map, block=block, scaling=scaling)
    values = stored.permute([order.index(d) for d in range(shard.dim())])
    if values.stride() != shard.stride():
        values = torch.empty_like(shard, dtype=torch.float32, requires_grad=False).copy_(values)
    return _sharding.like(param, values)


def memory_order(tensor: Tensor) -> list[int]:
    """Return the dimensions from the outermost in memory to the innermost."""
    strides = tensor.stride()
    last = [d for d in range(tensor.dim()) if tensor.shape[d] != 1]
    order = iter(sorted(last, key=lambda d: -strides[d]))
    return [d if tensor.shape[d] == 1 else next(order) for d in range(tensor.dim())]


def in_memory_order(tensor: Tensor) -> Tensor:
    """Return a dense tensor with its dimensions in the order of its memory, contiguous."""
    return tensor.permute(memory_order(tensor)).contiguous()


def _entries(param: Tensor, name: str, chosen: StateFormat, codes: Tensor, scales: Tensor) -> dict[str, Tensor]:
    described = torch.tensor([*chosen.stored_numbers(), *memory_order(_sharding.local(param))])
    return {
        name: _sharding.flat_like(param, codes),
        name + SCALE: _sharding.flat_like(param, scales),
        name + FORMAT: described,
    }
