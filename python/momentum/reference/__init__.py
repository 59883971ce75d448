"""Every algorithm in plain PyTorch and float64: the executable specification of the kernels.

A rule is ``rule(grad, state, step, **hypers) -> (update, new state)``; `apply_step` puts around it what all steps
share. Nothing here is fast or in place.
"""

from __future__ import annotations

from momentum.reference.adam import adam
from momentum.reference.frame import apply_step, cautious_mask, weight_average
from momentum.reference.lion import lion
from momentum.reference.philox import philox4x32
from momentum.reference.reductions import segment_reduce
from momentum.reference.scale import scale
from momentum.reference.sgd import sgd
from momentum.reference.spam import spam
from momentum.reference.stable_spam import stable_spam

__all__ = [
    "adam",
    "apply_step",
    "cautious_mask",
    "lion",
    "philox4x32",
    "scale",
    "segment_reduce",
    "sgd",
    "spam",
    "stable_spam",
    "weight_average",
]
