"""The step ops and quantisation on NumPy and CuPy arrays, without torch.

For every rule there is a function of the same name and with the same arguments as ``torch.ops.momentum.*``: :func:`adam_`,
``sgd_``, ``lion_`` and so on (``dir(momentum.array)`` lists them, ``help`` shows their arguments). Arrays may be anything with
``__dlpack__``: NumPy arrays, CuPy arrays, torch tensors. They are written in place, must be C-contiguous, and all lie on one
device. Results are bit for bit those of the torch op. States may be quantised: their lists then hold uint8 arrays of codes,
``scales`` and ``state_formats`` are those of the torch op.

What differs from the torch op:

- ``steps``, ``totals`` and the lists that may be empty are keywords. ``totals`` may be left out on the CPU.
- CUDA arrays need ``stream``, a ``cudaStream_t`` as an integer. The step is queued there and nothing waits for it: the arrays
  must be ready on that stream and stay alive until it has passed (CuPy's memory pool sees to that for its own current stream).
- A step is always the whole step of whole tensors; ``stage`` and ``shards`` exist in torch only.
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

:func:`quantize` and :func:`dequantize` turn an array into codes and scales and back; :func:`quantize_` and :func:`dequantize_`
are the ops under them, on arrays that exist:

>>> moment = np.linspace(-1, 1, 300, dtype=np.float32)
>>> quantized = array.quantize(moment, "int4")
>>> quantized.nbytes, round(float(abs(quantized.dequantize() - moment).max()), 2)
(162, 0.11)
"""

from __future__ import annotations

from collections.abc import Callable

try:
    from momentum import _array
except ImportError as error:
    raise ImportError(
        "momentum.array is not in this installation: build it with `make setup`, or with "
        "`MOMENTUM_ARRAY=ON pip install --no-build-isolation .` in a checkout"
    ) from error

from momentum._formats import CodeFormat
from momentum.array.convert import Quantized, dequantize, dequantize_, quantize, quantize_
from momentum.array.steps import FUNCTIONS

get_num_threads: Callable[[], int] = _array.get_num_threads
set_num_threads: Callable[[int], None] = _array.set_num_threads

__all__ = ["CodeFormat", "Quantized", "dequantize", "dequantize_", "get_num_threads", "quantize", "quantize_"]
__all__ += ["set_num_threads", *sorted(FUNCTIONS)]


def __getattr__(name: str) -> Callable[..., None]:
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
