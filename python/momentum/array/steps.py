"""The step functions, made from what the compiled module says of its rules."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from momentum import _array

_COMMON = {
    "lr_tensor": None,
    "weight_decay_tensor": None,
    "grad_scale": None,
    "found_inf": None,
    "decay": 0,
    "max_lr": 1.0,
    "maximize": False,
    "cautious": 0,
    "residual": 0,
    "rounding": 0,
    "seeds": 0,
    "ema_decay": 0.0,
    "state_formats": (),
    "perpendicular": 0,
}


def _signature(states: list[tuple[str, bool]], hypers: list[tuple[str, float | int | bool, bool]], scalars: int) -> Signature:
    lists = ["params", "grads", *(name for name, optional in states if not optional)]
    required = ["steps", "lr", *(["scalars"] if scalars else [])]
    defaults: dict[str, Any] = {name: () for name, optional in states if optional}
    defaults |= {"scales": (), "residuals": (), "ema_params": (), "totals": None, "weight_decay": 0.0}
    defaults |= {} if scalars else {"scalars": ()}
    defaults |= {name: default for name, default, _ in hypers}
    defaults |= {f"{name}_tensor": None for name, _, may_be_array in hypers if may_be_array}
    defaults |= _COMMON | {"stream": None}
    return Signature(
        [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in lists]
        + [Parameter(name, Parameter.KEYWORD_ONLY) for name in required]
        + [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()]
    )


def _function(rule: str, signature: Signature) -> Callable[..., None]:
    def step(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        _array.step(rule, bound.arguments, bound.arguments.pop("stream"))

    step.__name__ = step.__qualname__ = f"{rule}_"
    step.__module__ = "momentum.array"
    step.__signature__ = signature  # type: ignore[attr-defined]
    step.__doc__ = f"""Run one step of ``{rule}`` on lists of arrays, in place.

    The arguments are those of ``torch.ops.momentum.{rule}_`` with arrays for tensors; :mod:`momentum.array` says what differs.

    Raises
    ------
    TypeError
        When an argument is missing, unknown or no array.
    ValueError
        When a length, dtype, shape, device, layout or number is not as expected, an array that would be written is read-only or
        shares memory with another one, or ``stream`` does not go with the device. Nothing is written then.
    """
    return step


FUNCTIONS = {
    f"{rule}_": _function(rule, _signature(states, hypers, scalars)) for rule, states, hypers, scalars in _array.rules()
}
