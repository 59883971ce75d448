"""Every algorithm in plain PyTorch and float64: the executable specification of the kernels.

A rule is ``rule(grad, state, step, **hypers) -> (update, new state)``; `apply_step` puts around it what all steps
share. Nothing here is fast or in place.
"""

from __future__ import annotations

from momentum.reference.adabelief import adabelief
from momentum.reference.adam import adam
from momentum.reference.adan import adan
from momentum.reference.adaptive_memory import adaptive_memory
from momentum.reference.diffgrad import diffgrad
from momentum.reference.frame import apply_step, cautious_mask, weight_average
from momentum.reference.hessian_ema import hessian_ema
from momentum.reference.lion import lion
from momentum.reference.lion_top_k import lion_top_k
from momentum.reference.lists import extrapolate, normal, zeroth_order
from momentum.reference.normalized import normalized
from momentum.reference.perpendicular import perpendicular_gradient
from momentum.reference.philox import philox4x32
from momentum.reference.projection import adamp, sgdp
from momentum.reference.reductions import segment_reduce
from momentum.reference.samgs import SamgsState, samgs
from momentum.reference.scale import scale
from momentum.reference.sgd import sgd
from momentum.reference.sgd_sai import sgd_sai, signal_to_noise
from momentum.reference.sophia import sophia
from momentum.reference.spam import spam
from momentum.reference.stable_spam import stable_spam
from momentum.reference.stablemax import stablemax, stablemax_cross_entropy
from momentum.reference.transport import newton_matrix, sinkhorn, transport_objective, transport_plan, transport_value

__all__ = [
    "SamgsState",
    "adabelief",
    "adam",
    "adamp",
    "adan",
    "adaptive_memory",
    "apply_step",
    "cautious_mask",
    "diffgrad",
    "extrapolate",
    "hessian_ema",
    "lion",
    "lion_top_k",
    "newton_matrix",
    "normal",
    "normalized",
    "perpendicular_gradient",
    "philox4x32",
    "samgs",
    "scale",
    "segment_reduce",
    "sgd",
    "sgd_sai",
    "sgdp",
    "signal_to_noise",
    "sinkhorn",
    "sophia",
    "spam",
    "stable_spam",
    "stablemax",
    "stablemax_cross_entropy",
    "transport_objective",
    "transport_plan",
    "transport_value",
    "weight_average",
    "zeroth_order",
]
