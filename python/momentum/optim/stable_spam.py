"""Stable-SPAM: Adam on gradients of controlled size."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import (
    COMPAT,
    MOST_STEPS,
    CommonOptions,
    Group,
    check_betas,
    check_choice,
    check_integer,
    check_number,
)
from momentum.optim._rule import Reduction, Rule


class StableSPAM(FusedOptimizer):
    r"""Adam on gradients that are clipped by their running maximum and rescaled by their running norm, with momentum reset.

    Per tensor, with :math:`G = \max |g|` and :math:`k` the number of the step,

    .. math::
        M &= \theta M + (1 - \theta) G, \qquad T = M / (1 - \theta^k), \qquad |g| > T: \; g = (g / G) \, T \\
        \mu &= \gamma_1 s \mu + (1 - \gamma_1 s) \|g\|, \qquad \nu = \gamma_2 \nu + (1 - \gamma_2) \|g\|^2 \\
        g &= \frac{g}{\|g\|} \cdot \frac{\mu / (1 - (\gamma_1 s)^k)}{\sqrt{\nu / (1 - \gamma_2^k)} + \epsilon}

    and then Adam with :math:`\beta_1 s` in the place of :math:`\beta_1`. The moments and Adam's own step count start anew every
    ``reset_interval`` steps. :math:`s` falls from 1 to ``eta_min`` along a cosine over ``total_steps``.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, in both denominators. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    gammas
        :math:`\gamma_1, \gamma_2, \theta \in [0, 1)`; :math:`\gamma_1` None stands for :math:`\beta_1`.
        Default: (0.7, 0.9, 0.999).
    total_steps
        Length of the cosine; None keeps :math:`s = 1`. Default: None.
    eta_min
        Where the cosine ends, in [0, 1]. Default: 0.5.
    reset_interval
        Steps between resets; 0 turns them off. Default: 1000.
    compat
        ``"official"`` reproduces the published code: on a reset step it uses the old moments once more with :math:`k = 1`, the
        averages of maximum and norm share the count that is reset, and the cosine rises again after ``total_steps``.
        Default: ``"intended"``.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam" (2025), and TianjinYellow/StableSPAM
    ``galore_torch/stablespam.py``. :math:`M, \mu, \nu` are the state ``scalars``. Gradients are not written.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.StableSPAM(model.parameters(), lr=1e-3, total_steps=10_000)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("stable_spam", ("exp_avg", "exp_avg_sq"), scalars=3, reductions=(Reduction("max"), Reduction("sum")))

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.0,
        *,
        gammas: tuple[float | None, float, float] = (0.7, 0.9, 0.999),
        total_steps: int | None = None,
        eta_min: float = 0.5,
        reset_interval: int = 1000,
        compat: str = "intended",
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "gammas": gammas,
            "total_steps": total_steps,
            "eta_min": eta_min,
            "reset_interval": reset_interval,
            "compat": compat,
        }
        super().__init__(params, defaults, options)

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        gamma1, gamma2, theta = group["gammas"]
        return {
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "gamma1": float(beta1) if gamma1 is None else gamma1,
            "gamma2": gamma2,
            "theta": theta,
            "total_steps": group["total_steps"] or 0,
            "eta_min": group["eta_min"],
            "reset_interval": group["reset_interval"],
            "official": COMPAT[group["compat"]],
        }

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        if not isinstance(group["gammas"], (tuple, list)) or len(group["gammas"]) != 3:
            raise ValueError(f"gammas must be three numbers, got {group['gammas']!r}")
        for i, gamma in enumerate(group["gammas"]):
            if i > 0 or gamma is not None:
                check_number(f"gammas[{i}]", gamma, 0.0, 1.0, below=True)
        if group["gammas"][0] is None and isinstance(group["betas"][0], Tensor):
            raise ValueError("gammas[0] must be a number where betas[0] is a tensor, which may change")
        if group["total_steps"] is not None:
            check_integer("total_steps", group["total_steps"], low=1, high=MOST_STEPS)
        check_number("eta_min", group["eta_min"], 0.0, 1.0)
        check_integer("reset_interval", group["reset_interval"], high=MOST_STEPS)
        check_choice("compat", group["compat"], COMPAT)
