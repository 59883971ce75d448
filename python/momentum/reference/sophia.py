"""Sophia (Liu et al., 2023, arXiv 2305.14342): clipped momentum over an estimate of the Hessian's diagonal."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def sophia(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.965,
    scale: float = 1.0,
    clip: float = 1.0,
    eps: float = 1e-15,
    floor: bool = False,
) -> tuple[Tensor, State]:
    """Return ``clip(m / (scale h + eps), ±clip)`` and the new momentum; the estimate h stays as it is.

    With ``floor`` the denominator is max(scale h, eps). A negative estimate counts as zero.
    """
    exp_avg = beta1 * state["exp_avg"] + (1 - beta1) * grad
    scaled = scale * state["hessian"]
    denom = scaled.clamp(min=eps) if floor else scaled.clamp(min=0) + eps
    return (exp_avg / denom).clamp(-clip, clip), {"exp_avg": exp_avg, "hessian": state["hessian"]}
