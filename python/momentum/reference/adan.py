"""Adan (Xie et al., 2022, arXiv 2208.06677), with the betas of the authors' code: one minus those of the paper."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def adan(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.98,
    beta2: float = 0.92,
    beta3: float = 0.99,
    eps: float = 1e-8,
) -> tuple[Tensor, State]:
    """Return the Nesterov estimate ``m̂ + beta2 ẑ`` over the root of its second moment; the change is 0 at first.

    The state ``neg_pre_grad`` is the gradient of the step before with its sign turned.
    """
    change = grad - grad if step == 1 else grad + state["neg_pre_grad"]
    exp_avg = beta1 * state["exp_avg"] + (1 - beta1) * grad
    exp_avg_diff = beta2 * state["exp_avg_diff"] + (1 - beta2) * change
    exp_avg_sq = beta3 * state["exp_avg_sq"] + (1 - beta3) * (grad + beta2 * change) ** 2
    denom = (exp_avg_sq / (1 - beta3**step)).sqrt() + eps
    ahead = exp_avg / (1 - beta1**step) + beta2 * exp_avg_diff / (1 - beta2**step)
    new = {"exp_avg": exp_avg, "exp_avg_diff": exp_avg_diff, "exp_avg_sq": exp_avg_sq, "neg_pre_grad": -grad}
    return ahead / denom, new
