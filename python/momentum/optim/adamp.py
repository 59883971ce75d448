"""AdamP: Adam that leaves the norm of normalised weights alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_projection
from momentum.optim._rule import PROJECTION, Rule


class AdamP(FusedOptimizer):
    r"""Adam whose update loses its component along the weights where these are followed by a normalisation.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad
        u_t = \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} \\
        p_t &= (1 - \eta \lambda \rho_t) \, p_{t-1} - \frac{\eta}{1 - \beta_1^t}
        \left( u_t - q_t \langle q_t, u_t \rangle \right), \qquad q_t = \frac{p_{t-1}}{\|p_{t-1}\| + \epsilon}

    A parameter of two or more dimensions is seen as rows: its first dimension by the rest. Where in every row
    :math:`|\cos(g_t, p_{t-1})| < \delta / \sqrt{\text{length of the row}}`, which is so of weights whose scale does not matter,
    norms and products are those of rows; where it is so of the parameter as one row, those of the whole parameter. Then
    :math:`\rho_t` is ``wd_ratio``. Elsewhere, and for parameters of fewer dimensions, :math:`\rho_t = 1` and this is AdamW.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, outside the root and beside the norms. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    delta
        :math:`\delta \ge 0`: how far from perpendicular a gradient may be; 0 turns the projection off. Default: 0.1.
    wd_ratio
        :math:`\rho \ge 0`: what weight decay is multiplied by where the update is projected, unless it is part of the gradient
        (``weight_decay_mode="l2"``). Default: 0.1.
    nesterov
        Look ahead: :math:`\beta_1 m_t + (1 - \beta_1) g_t` in the place of :math:`m_t` in :math:`u_t`. Default: False.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.
    RuntimeError
        At a step, when rows of a sharded parameter are split between processes: they must be sharded along dimension 0.

    Notes
    -----
    Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights" (2021), algorithm 2, and
    clovaai/AdamP ``adamp/adamp.py``. Which view holds is decided on the device: two launches a step, and no synchronisation.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.AdamP(model.parameters(), lr=1e-3, weight_decay=1e-2)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("adamp", ("exp_avg", "exp_avg_sq"), reductions=PROJECTION)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "delta": delta,
            "wd_ratio": wd_ratio,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, options)

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"beta1": beta1, "beta2": beta2, **{name: group[name] for name in ("eps", "delta", "wd_ratio", "nesterov")}}

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_projection(group)
