"""Options that every optimizer has, their checks, and what they become in a call of an op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypedDict

import torch
from torch import Tensor

from momentum.enums import Cautious, DecayMode, Perpendicular, Residual, Rounding
from momentum.quant.formats import FORMATS, StateFormat

Group = dict[str, Any]
OneFormat = str | torch.dtype | StateFormat | None
Exceptions = Sequence[str | int] | Callable[[str, Tensor], bool]

DECAY_MODES = {
    "l2": DecayMode.L2,
    "decoupled": DecayMode.DECOUPLED,
    "lr_decoupled": DecayMode.LR_DECOUPLED,
    "prox": DecayMode.PROX,
    "decoupled_after": DecayMode.DECOUPLED_AFTER,
}
CAUTIOUS = {False: Cautious.OFF, True: Cautious.MASK, "mask": Cautious.MASK, "rescaled": Cautious.RESCALED}
ORTHOGRAD = {
    False: Perpendicular.OFF,
    True: Perpendicular.RENORMALIZED,
    "renormalized": Perpendicular.RENORMALIZED,
    "projected": Perpendicular.PROJECTED,
}
RESIDUALS = {None: Residual.NONE, "kahan": Residual.KAHAN, "master": Residual.MASTER, "low_bits": Residual.LOW_BITS}
ROUNDINGS = {"nearest": Rounding.NEAREST, "stochastic": Rounding.STOCHASTIC}

SCALE, FORMAT = "_scale", "_format"
"""What the names of a quantised state's other entries end in."""

COMPAT = {"intended": False, "official": True}
"""Whether an optimizer follows its published code where that differs from its paper's intent."""

MOST_STEPS = 10**9
"""Bound of the ops on lengths of schedules."""

STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FLOAT_FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    orthograd : bool or str
        Step along the part of each tensor's gradient that is perpendicular to the parameter (⊥Grad): True or
        ``"renormalized"`` at the norm of the whole gradient, ``"projected"`` as it is. A gradient that is parallel to its
        parameter, as that of every tensor of one element, counts as 0. One launch more. Default: False.
    state_format : str, torch.dtype, StateFormat or dict
        How the states are stored, for all or by name: ``"fp32"``, ``"bf16"``, ``"fp16"`` or a dtype; quantised in blocks as
        ``"int8"``, ``"int4"`` or ``"fp8"`` or any :class:`momentum.quant.StateFormat`. Default: float32, and float64 for
        float64 parameters, whose states are never quantised.
    quantize_min_numel : int
        Parameters with fewer elements keep float32 states where others are quantised. Default: 4096.
    full_precision : sequence of str or int, or callable
        Other parameters that do: patterns of names as in :mod:`fnmatch` (the parameters must then be named), places in the
        group, or a function of name (``""`` without one) and parameter that says so. Default: none.
    compensation : str or None
        For bfloat16 and float16 parameters: ``"kahan"`` keeps what rounding cut off, ``"master"`` a float32 copy,
        ``"low_bits"`` (bfloat16 only) the next eight bits, which makes 24-bit parameters. Default: None.
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
    orthograd: bool | str
    state_format: OneFormat | dict[str, OneFormat]
    quantize_min_numel: int
    full_precision: Exceptions
    compensation: str | None
    rounding: str
    ema_decay: float | None
    seed: int


COMMON_DEFAULTS: CommonOptions = {
    "weight_decay_mode": "decoupled",
    "max_lr": None,
    "maximize": False,
    "cautious": False,
    "orthograd": False,
    "state_format": None,
    "quantize_min_numel": 4096,
    "full_precision": (),
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


def check_projection(group: Group) -> None:
    """Check the options of the projection that AdamP and SGDP share."""
    for name in ("eps", "delta", "wd_ratio"):
        check_number(name, group[name])
    check_flag("nesterov", group["nesterov"])


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


def check_common(group: Group, state_names: tuple[str, ...], non_negative: tuple[str, ...]) -> None:
    """Raise unless the options that all optimizers share are valid in ``group``."""
    check_rates(group["lr"], group["weight_decay"])
    check_choice("weight_decay_mode", group["weight_decay_mode"], DECAY_MODES)
    check_flag("maximize", group["maximize"])
    check_choice("cautious", group["cautious"], CAUTIOUS)
    check_choice("orthograd", group["orthograd"], ORTHOGRAD)
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
    check_integer("quantize_min_numel", group["quantize_min_numel"])
    check_exceptions(group)
    check_state_format(group["state_format"], state_names, non_negative)


def check_state_format(value: object, state_names: tuple[str, ...], non_negative: tuple[str, ...]) -> None:
    """Raise unless ``value`` is a format of states, or a dictionary of them by state name."""
    named = value if isinstance(value, dict) else dict.fromkeys(state_names, value)
    known = (*state_names, "ema")
    for name, chosen in named.items():
        if name not in known:
            raise ValueError(f"state_format names an unknown state {name!r}: expected one of {', '.join(known)}")
        is_named = isinstance(chosen, str) and chosen in (*FLOAT_FORMATS, *FORMATS)
        if not (chosen is None or is_named or isinstance(chosen, StateFormat) or chosen in STATE_DTYPES):
            names = ", ".join(map(repr, (*FLOAT_FORMATS, *FORMATS)))
            raise ValueError(f"state_format must be one of {names}, a StateFormat or a floating point dtype, got {chosen!r}")
        if isinstance(chosen, StateFormat) and chosen.is_unsigned and name not in non_negative:
            raise ValueError(f"state_format: {chosen.map.name.lower()} has no sign, and state {name!r} needs one")
        if isinstance(value, dict) and name == "ema" and (isinstance(chosen, StateFormat) or chosen in FORMATS):
            raise ValueError(f"state_format: the average 'ema' is not quantised, got {chosen!r}")


def check_exceptions(group: Group) -> None:
    """Raise unless ``full_precision`` of ``group`` is a function or a sequence of patterns and places."""
    value = group["full_precision"]
    if callable(value):
        return
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"full_precision must be a sequence of name patterns, or a function, got {value!r}")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, (str, int)):
            raise TypeError(f"full_precision holds {entry!r}, expected patterns of names or places in the group")


def resolve_exceptions(group: Group) -> None:
    """Replace a function in ``full_precision`` by the places it chooses, which can be saved.

    Raises
    ------
    ValueError
        When patterns are given for parameters without names.
    """
    value = group["full_precision"]
    names = group.get("param_names")
    if callable(value):
        named = zip(names or [""] * len(group["params"]), group["params"], strict=True)
        group["full_precision"] = tuple(i for i, (name, param) in enumerate(named) if value(name, param))
        return
    if names is None and any(isinstance(entry, str) for entry in value):
        raise ValueError("full_precision has patterns of names: give the optimizer model.named_parameters()")


def common_arguments(group: Group) -> dict[str, Any]:
    """Return what the shared options of ``group`` are called in an op, without those that are off, as by default."""
    decay = DECAY_MODES[group["weight_decay_mode"]]
    arguments: dict[str, Any] = {
        "decay": int(decay),
        "maximize": group["maximize"],
        "cautious": int(CAUTIOUS[group["cautious"]]),
        "perpendicular": int(ORTHOGRAD[group["orthograd"]]),
        "rounding": int(ROUNDINGS[group["rounding"]]),
    }
    if decay == DecayMode.LR_DECOUPLED:
        arguments["max_lr"] = float(group["max_lr"])
    if group["ema_decay"] is not None:
        arguments["ema_decay"] = float(group["ema_decay"])
    return {name: value for name, value in arguments.items() if value}
