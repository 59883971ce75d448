"""What every step shares around its rule: unscaling, maximize, weight decay, the cautious mask, the weight average."""

from __future__ import annotations

from inspect import signature

from torch import Tensor

from momentum.enums import Cautious, DecayMode, Perpendicular
from momentum.reference.perpendicular import perpendicular_gradient
from momentum.reference.state import Rule, State

SMALLEST_SHARE = 1e-3


def apply_step(
    rule: Rule,
    param: Tensor,
    grad: Tensor,
    state: State,
    step: int,
    *,
    lr: float,
    weight_decay: float = 0.0,
    decay: int = DecayMode.NONE,
    max_lr: float = 1.0,
    maximize: bool = False,
    cautious: int = Cautious.OFF,
    grad_scale: float = 1.0,
    perpendicular: int = Perpendicular.OFF,
    **hypers: float,
) -> tuple[Tensor, State]:
    """Return the parameter and the state after step number ``step`` of ``rule``."""
    grad = seen_gradient(
        grad, param, weight_decay, decay=decay, maximize=maximize, grad_scale=grad_scale, perpendicular=perpendicular
    )
    update, state, decay_scale = run_rule(rule, grad, param, state, step, hypers)
    if cautious != Cautious.OFF:
        update = cautious_mask(update, grad, cautious)
    moved, shrink = lr * update, lr * weight_decay * decay_scale
    if decay == DecayMode.DECOUPLED:
        return param * (1 - shrink) - moved, state
    if decay == DecayMode.LR_DECOUPLED:
        return param * (1 - shrink / max_lr) - moved, state
    if decay == DecayMode.PROX:
        return (param - moved) / (1 + shrink), state
    if decay == DecayMode.DECOUPLED_AFTER:
        return (param - moved) * (1 - shrink), state
    return param - moved, state


def seen_gradient(
    grad: Tensor,
    param: Tensor,
    weight_decay: float = 0.0,
    *,
    decay: int = DecayMode.NONE,
    maximize: bool = False,
    grad_scale: float = 1.0,
    perpendicular: int = Perpendicular.OFF,
) -> Tensor:
    """Return the gradient as the rule sees it."""
    grad = (-grad if maximize else grad) / grad_scale
    if perpendicular != Perpendicular.OFF:
        grad = perpendicular_gradient(grad, param, renormalize=perpendicular == Perpendicular.RENORMALIZED)
    return grad + weight_decay * param if decay == DecayMode.L2 else grad


def run_rule(
    rule: Rule, grad: Tensor, param: Tensor, state: State, step: int, hypers: dict[str, float]
) -> tuple[Tensor, State, float]:
    """Return update and state of ``rule``, and what it multiplies weight decay by, unless that is L2.

    One whose update depends on the parameter takes it as the keyword ``param``; most leave the decay alone and return two
    values.
    """
    own = {"param": param} if "param" in signature(rule).parameters else {}
    update, state, *decay_scale = rule(grad, state, step, **own, **hypers)
    return update, state, *(decay_scale or (1.0,))


def cautious_mask(update: Tensor, grad: Tensor, cautious: int) -> Tensor:
    """Drop the entries whose update does not agree with the gradient (Liang et al., 2024, arXiv 2411.16085).

    RESCALED divides by the kept share of the tensor, taken as at least 1e-3.
    """
    keep = update * grad > 0
    kept = update * keep
    if cautious == Cautious.MASK or not keep.numel():
        return kept
    return kept / keep.double().mean().clamp(min=SMALLEST_SHARE)


def weight_average(ema: Tensor, param: Tensor, decay: float) -> Tensor:
    """Return the exponential moving average of the weights after a step that left ``param``."""
    return decay * ema + (1 - decay) * param
