"""What the tests of quantised states share: parameters large enough, formats by name, what a state holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from momentum.optim import _formats
from momentum.quant import StateFormat
from optim.cases import CASES, Gradients, make_params, train

# Two that are quantised at the default size limit, one of them a matrix with a tail; others that are not.
SHAPES = [(70, 65), (5000,), (33,), (), (0,), (3, 2, 2)]
KINDS = ("int4", "int8", "fp8")
LARGE = 2  # of SHAPES


def trained(name: str, steps: int = 5, dtype: torch.dtype = torch.float32, **options: Any):
    params = make_params(dtype, SHAPES)
    optimizer = CASES[name].make(params, **options)
    gradients = Gradients()
    train(optimizer, params, steps, gradients)
    return params, optimizer, gradients


def state_names(state: dict[str, Any]) -> list[str]:
    """Return the names of the states that are quantised."""
    return [key.removesuffix("_format") for key in state if key.endswith("_format")]


def format_of(state: dict[str, Any], name: str) -> StateFormat | torch.dtype:
    return _formats.stored_format(state, name)


def value_of(state: dict[str, Any], param: nn.Parameter, name: str) -> Tensor:
    """Return a state as numbers, whatever its format."""
    return _formats.dequantised(state, param.detach(), name) if name in state_names(state) else state[name].float()
