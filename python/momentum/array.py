"""The step ops on NumPy and CuPy arrays, without torch.

For every rule there is a function of the same name and with the same arguments as ``torch.ops.momentum.*``: :func:`adam_`,
``sgd_``, ``lion_`` and so on (``dir(momentum.array)`` lists them, ``help`` shows their arguments). Arrays may be anything with
``__dlpack__``: NumPy arrays, CuPy arrays, torch tensors. They are written in place, must be C-contiguous, and all lie on one
device. Results are bit for bit those of the torch op.

What differs from the torch op:

- ``steps``, ``totals`` and the lists that may be empty are keywords. ``totals`` may be left out on the CPU.
- CUDA arrays need ``stream``, a ``cudaStream_t`` as an integer. The step is queued there and nothing waits for it: the arrays
  must be ready on that stream and stay alive until it has passed (CuPy's memory pool sees to that for its own current stream).
- A step is always the whole step of whole tensors; ``stage``, ``shards`` and ``perpendicular`` exist in torch only.
- The CPU threads are this module's own, not torch's: :func:`set_num_threads`.

This module is part of source builds with ``MOMENTUM_ARRAY=ON`` (the default of ``make setup``), not of the wheel, because it
binds to one Python version.

Examples
--------
>>> import numpy as np
>>> from momentum import array
>>> weights, gradient = np.ones(3, np.float32), np.full(3, 2.0, np.float32)
>>> exp_avg, exp_avg_sq = np.zeros(3, np.float32), np.zeros(3, np.float32)
>>> steps = np.zeros(2, np.float32)  # completed steps of the one parameter, and the launch's arrival counter
>>> array.adam_([weights], [gradient], [exp_avg], [exp_avg_sq], steps=steps, lr=0.1)
>>> weights.round(3), steps
(array([0.9, 0.9, 0.9], dtype=float32), array([1., 0.], dtype=float32))

With CuPy::

    stream = cupy.cuda.get_current_stream().ptr
    array.adam_([weights], [gradient], [exp_avg], [exp_avg_sq], steps=steps, lr=0.1, stream=stream)
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

try:
    from momentum import _array
except ImportError as error:
    raise ImportError(
        "momentum.array is not in this installation: build it with `make setup`, or with "
        "`MOMENTUM_ARRAY=ON pip install --no-build-isolation .` in a checkout"
    ) from error

get_num_threads: Callable[[], int] = _array.get_num_threads
set_num_threads: Callable[[int], None] = _array.set_num_threads

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
}


def _signature(states: list[tuple[str, bool]], hypers: list[tuple[str, float | int | bool, bool]], scalars: int) -> Signature:
    lists = ["params", "grads", *(name for name, optional in states if not optional)]
    required = ["steps", "lr", *(["scalars"] if scalars else [])]
    defaults: dict[str, Any] = {name: () for name, optional in states if optional}
    defaults |= {"residuals": (), "ema_params": (), "totals": None, "weight_decay": 0.0}
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
    step.__module__ = __name__
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


_FUNCTIONS = {
    f"{rule}_": _function(rule, _signature(states, hypers, scalars)) for rule, states, hypers, scalars in _array.rules()
}

__all__ = ["get_num_threads", "set_num_threads"]
__all__ += sorted(_FUNCTIONS)


def __getattr__(name: str) -> Callable[..., None]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
