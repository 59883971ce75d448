"""What every step shares around its rule: unscaling, maximize, weight decay, the cautious mask, the weight average."""

from __future__ import annotations

from torch import Tensor

from momentum.enums import Cautious, DecayMode
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
    **hypers: float,
) -> tuple[Tensor, State]:
    """Return the parameter and the state after step number ``step`` of ``rule``."""
    grad = (-grad if maximize else grad) / grad_scale
    if decay == DecayMode.L2:
        grad = grad + weight_decay * param
    update, state = rule(grad, state, step, **hypers)
    if cautious != Cautious.OFF:
        update = cautious_mask(update, grad, cautious)
    moved, shrink = lr * update, lr * weight_decay
    if decay == DecayMode.DECOUPLED:
        return param * (1 - shrink) - moved, state
    if decay == DecayMode.LR_DECOUPLED:
        return param * (1 - shrink / max_lr) - moved, state
    if decay == DecayMode.PROX:
        return (param - moved) / (1 + shrink), state
    if decay == DecayMode.DECOUPLED_AFTER:
        return (param - moved) * (1 - shrink), state
    return param - moved, state


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
