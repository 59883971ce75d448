"""Options that every optimizer has, their checks, and what they become in a call of an op."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypedDict

import torch
from torch import Tensor

from momentum.enums import Cautious, DecayMode, Residual, Rounding

Group = dict[str, Any]
StateDtype = torch.dtype | dict[str, torch.dtype]

DECAY_MODES = {
    "l2": DecayMode.L2,
    "decoupled": DecayMode.DECOUPLED,
    "lr_decoupled": DecayMode.LR_DECOUPLED,
    "prox": DecayMode.PROX,
    "decoupled_after": DecayMode.DECOUPLED_AFTER,
}
CAUTIOUS = {False: Cautious.OFF, True: Cautious.MASK, "mask": Cautious.MASK, "rescaled": Cautious.RESCALED}
RESIDUALS = {None: Residual.NONE, "kahan": Residual.KAHAN, "master": Residual.MASTER}
ROUNDINGS = {"nearest": Rounding.NEAREST, "stochastic": Rounding.STOCHASTIC}

COMPAT = {"intended": False, "official": True}
"""Whether an optimizer follows its published code where that differs from its paper's intent."""

MOST_STEPS = 10**9
"""Bound of the ops on lengths of schedules."""

STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class CommonOptions(TypedDict, total=False):
    """Keyword options that every optimizer of this package accepts, as a default and per parameter group.

    Attributes
    ----------
    weight_decay_mode : str
        ``"l2"``, ``"decoupled"``, ``"lr_decoupled"``, ``"prox"`` or ``"decoupled_after"``: see
        :class:`momentum.enums.DecayMode`. The default is the optimizer's.
    max_lr : float
        What ``"lr_decoupled"`` divides the learning rate by. Default: the learning rate the group starts with.
    maximize : bool
        Ascend instead of descend. Default: False.
    cautious : bool or str
        Drop entries of the update that disagree with the gradient in sign: True or ``"mask"``, or ``"rescaled"`` to
        divide the rest by the share that is left. Default: False.
    state_dtype : torch.dtype or dict[str, torch.dtype]
        Dtype of the states, for all or by name. Default: float32, and float64 for float64 parameters.
    compensation : str or None
        For bfloat16 and float16 parameters: ``"kahan"`` keeps what rounding cut off, ``"master"`` a float32 copy.
        Default: None.
    rounding : str
        How bfloat16 and float16 parameters are stored: ``"nearest"`` or ``"stochastic"``. Default: ``"nearest"``.
    ema_decay : float or None
        Keep an exponential moving average of the weights with this decay in the state ``"ema"``. Default: None.
    seed : int
        Seed of stochastic rounding; each parameter draws from its own stream. Default: 0.
    """

    weight_decay_mode: str
    max_lr: float | None
    maximize: bool
    cautious: bool | str
    state_dtype: StateDtype | None
    compensation: str | None
    rounding: str
    ema_decay: float | None
    seed: int


COMMON_DEFAULTS: CommonOptions = {
    "weight_decay_mode": "decoupled",
    "max_lr": None,
    "maximize": False,
    "cautious": False,
    "state_dtype": None,
    "compensation": None,
    "rounding": "nearest",
    "ema_decay": None,
    "seed": 0,
}


def check_number(name: str, value: object, low: float = 0.0, high: float = math.inf, *, below: bool = False) -> None:
    """Raise unless ``value`` is a number in ``[low, high]`` (``[low, high)`` with ``below``) or a tensor that may be one.

    A tensor on an accelerator is not read: that would wait for the device.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1 or not value.is_floating_point():
            raise ValueError(
                f"{name} as a tensor must hold one floating point number, got shape {tuple(value.shape)} and {value.dtype}"
            )
        if value.device.type != "cpu":
            return
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    value = float(value)
    if not (low <= value and (value < high if below or high == math.inf else value <= high)):
        interval = f"[{low:g}, {high:g}{')' if below or high == math.inf else ']'}"
        raise ValueError(f"{name} must be in {interval}, got {value}")


def check_integer(name: str, value: object, low: int = 0, high: int = 2**63 - 1) -> None:
    """Raise unless ``value`` is an integer in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def check_flag(name: str, value: object) -> None:
    """Raise unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: object, choices: Mapping[Any, object]) -> None:
    """Raise unless ``value`` is one of the keys of ``choices``."""
    if not isinstance(value, (str, bool, type(None))) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_betas(value: object) -> None:
    """Raise unless ``value`` is a pair of coefficients in ``[0, 1)``."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"betas must be a pair of numbers, got {value!r}")
    for i, beta in enumerate(value):
        check_number(f"betas[{i}]", beta, 0.0, 1.0, below=True)


def check_rates(lr: object, weight_decay: object) -> None:
    """Raise unless the two numbers that a schedule may change are valid."""
    check_number("lr", lr)
    check_number("weight_decay", weight_decay)


def check_common(group: Group, state_names: tuple[str, ...]) -> None:
    """Raise unless the options that all optimizers share are valid in ``group``."""
    check_rates(group["lr"], group["weight_decay"])
    check_choice("weight_decay_mode", group["weight_decay_mode"], DECAY_MODES)
    check_flag("maximize", group["maximize"])
    check_choice("cautious", group["cautious"], CAUTIOUS)
    check_choice("compensation", group["compensation"], RESIDUALS)
    check_choice("rounding", group["rounding"], ROUNDINGS)
    check_integer("seed", group["seed"])
    if group["ema_decay"] is not None:
        check_number("ema_decay", group["ema_decay"], 0.0, 1.0, below=True)
    if group["compensation"] == "kahan" and group["rounding"] == "stochastic":
        raise ValueError("compensation='kahan' and rounding='stochastic' exclude each other: both make up for rounding")
    if group["max_lr"] is not None:
        check_number("max_lr", group["max_lr"])
    if group["weight_decay_mode"] == "lr_decoupled" and group["max_lr"] is not None and group["max_lr"] <= 0:
        raise ValueError("weight_decay_mode='lr_decoupled' needs a positive max_lr, or a positive lr to start with")
    check_state_dtype(group["state_dtype"], state_names)


def check_state_dtype(value: object, state_names: tuple[str, ...]) -> None:
    """Raise unless ``value`` is None, a floating point dtype or a dictionary of them by state name."""
    named = value if isinstance(value, dict) else dict.fromkeys(state_names, value)
    known = (*state_names, "ema")
    for name, dtype in named.items():
        if name not in known:
            raise ValueError(f"state_dtype names an unknown state {name!r}: expected one of {', '.join(known)}")
        if dtype is not None and dtype not in STATE_DTYPES:
            raise ValueError(f"state_dtype must be one of {', '.join(map(str, STATE_DTYPES))}, got {dtype!r}")


def state_dtype(group: Group, name: str, param: Tensor) -> torch.dtype:
    """Return the dtype in which a new state ``name`` of ``param`` is kept."""
    chosen = group["state_dtype"]
    if isinstance(chosen, dict):
        chosen = chosen.get(name)
    if isinstance(chosen, torch.dtype):
        return chosen
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def common_arguments(group: Group) -> dict[str, Any]:
    """Return what the shared options of ``group`` are called in an op, without those that are off, as by default."""
    decay = DECAY_MODES[group["weight_decay_mode"]]
    arguments: dict[str, Any] = {
        "decay": int(decay),
        "maximize": group["maximize"],
        "cautious": int(CAUTIOUS[group["cautious"]]),
        "rounding": int(ROUNDINGS[group["rounding"]]),
    }
    if decay == DecayMode.LR_DECOUPLED:
        arguments["max_lr"] = float(group["max_lr"])
    if group["ema_decay"] is not None:
        arguments["ema_decay"] = float(group["ema_decay"])
    return {name: value for name, value in arguments.items() if value}
