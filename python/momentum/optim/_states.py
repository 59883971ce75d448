"""The state a parameter gets when it is first stepped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentum.enums import Residual
from momentum.optim import _formats
from momentum.optim._launch import Settings
from momentum.optim._options import FORMAT, SCALE, Group
from momentum.quant.formats import StateFormat


def fill_state(state: dict[str, Any], param: Tensor, group: Group, settings: Settings, place: int) -> None:
    """Add to ``state`` what ``param``, at ``place`` in ``group``, needs and does not have yet.

    Moments start as zeros, the master copy and the average as the parameter. A state that is there is left as it is,
    whatever its dtype, unless it is quantised and should not be or the other way round. The step count is added by the launch.
    """
    for name in settings.states:
        wanted = _formats.format_of(group, settings.rule, name, param, place)
        if name not in state:
            state.update(_formats.zeros(param, name, wanted))
        elif _is_other(_formats.stored_format(state, name), wanted):
            replace_state(state, name, _formats.convert(state, param, name, wanted))
    residual = settings.residual_of(param)
    if residual == Residual.KAHAN and "compensation" not in state:
        state["compensation"] = torch.zeros_like(param, requires_grad=False)
    if residual == Residual.MASTER and "master_param" not in state:
        state["master_param"] = param.detach().to(torch.float32, copy=True)
    if residual == Residual.LOW_BITS and "low_bits" not in state:
        state["low_bits"] = torch.zeros_like(param, dtype=torch.int8, requires_grad=False)
    if settings.ema and "ema" not in state:
        dtype = _formats.format_of(group, settings.rule, "ema", param, place)
        assert isinstance(dtype, torch.dtype)
        state["ema"] = param.detach().to(dtype, copy=True)
    if settings.rule.scalars and "scalars" not in state:
        state["scalars"] = torch.zeros(settings.rule.scalars, dtype=torch.float32, device=param.device)


def replace_state(state: dict[str, Any], name: str, entries: dict[str, Tensor]) -> None:
    """Put the entries of state ``name`` in the place of those it has."""
    for part in (name + SCALE, name + FORMAT):
        state.pop(part, None)
    state.update(entries)


def _is_other(stored: torch.dtype | StateFormat, wanted: torch.dtype | StateFormat) -> bool:
    if isinstance(stored, StateFormat) and isinstance(wanted, StateFormat):
        return not stored.same_storage(wanted)
    return isinstance(stored, StateFormat) or isinstance(wanted, StateFormat)
