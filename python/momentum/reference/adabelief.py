"""AdaBelief (Zhuang et al., 2020, arXiv 2010.07468), as its authors' package 0.2.1 evaluates it."""

from __future__ import annotations

from decimal import Decimal

import torch
from torch import Tensor

from momentum.reference.state import State


def effective_length(beta2: float, step: int) -> float:
    """Return ρ of RAdam (Liu et al., 2020, algorithm 2): how many gradients the second moment averages.

    In decimal numbers of 28 digits, because the difference of large terms costs some.
    """
    beta = Decimal(beta2)
    power = beta**step
    return float(2 / (1 - beta) - 1 - 2 * step * power / (1 - power))


def adabelief(
    grad: Tensor,
    state: State,
    step: int,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-16,
    rectify: bool = True,
    degenerated_to_sgd: bool = True,
) -> tuple[Tensor, State]:
    """Return Adam's update with the variance around the momentum in the place of the second moment.

    ``eps`` is added to the stored variance at every step, as in the authors' code. With ``rectify`` the update is that
    of RAdam, and its maximum is ignored: momentum alone, or nothing, until ρ reaches 5.
    """
    exp_avg = beta1 * state["exp_avg"] + (1 - beta1) * grad
    exp_avg_var = beta2 * state["exp_avg_var"] + (1 - beta2) * (grad - exp_avg) ** 2 + eps
    new = {"exp_avg": exp_avg, "exp_avg_var": exp_avg_var}
    second = exp_avg_var
    if "max_exp_avg_var" in state:
        second = new["max_exp_avg_var"] = torch.maximum(state["max_exp_avg_var"], exp_avg_var)
    mean = exp_avg / (1 - beta1**step)
    if not rectify:
        return mean / ((second / (1 - beta2**step)).sqrt() + eps), new
    rho, most = effective_length(beta2, step), 2 / (1 - beta2) - 1
    if rho < 5:
        return (mean if degenerated_to_sgd else 0 * mean), new
    rectifier = (rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)
    return (rectifier * (1 - beta2**step)) ** 0.5 * mean / (exp_avg_var.sqrt() + eps), new
