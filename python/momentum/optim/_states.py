"""The state a parameter gets when it is first stepped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentum.enums import Residual
from momentum.optim._launch import Settings
from momentum.optim._options import Group, state_dtype


def fill_state(state: dict[str, Any], param: Tensor, group: Group, settings: Settings) -> list[str]:
    """Add to ``state`` what ``param`` needs and does not have yet, and return the names of what was added.

    Moments start as zeros, the master copy and the average as the parameter. A state that is there is left as it is:
    a loaded one keeps its dtype. The step count is added by the launch.
    """
    added = []

    def add(name: str, value: Tensor) -> None:
        state[name] = value
        added.append(name)

    for name in settings.states:
        if name not in state:
            add(name, torch.zeros_like(param, dtype=state_dtype(group, name, param), requires_grad=False))
    residual = settings.residual_of(param)
    if residual == Residual.KAHAN and "compensation" not in state:
        add("compensation", torch.zeros_like(param, requires_grad=False))
    if residual == Residual.MASTER and "master_param" not in state:
        add("master_param", param.detach().to(torch.float32, copy=True))
    if settings.ema and "ema" not in state:
        add("ema", param.detach().to(state_dtype(group, "ema", param), copy=True))
    if settings.rule.scalars and "scalars" not in state:
        add("scalars", torch.zeros(settings.rule.scalars, dtype=torch.float32, device=param.device))
    return added
