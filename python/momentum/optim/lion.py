"""Lion."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas
from momentum.optim._rule import Rule


class Lion(FusedOptimizer):
    r"""Lion: the sign of an interpolated momentum.

    .. math::
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-4.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.99).
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2, and google/automl ``lion_pytorch.py``.
    sign(0) is 0. The state also counts steps, for stochastic rounding; a state without a count can be loaded.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.Lion(model.parameters(), lr=1e-3, weight_decay=0.1)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("lion", ("exp_avg",), counts=False)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        weight_decay: float | Tensor = 0.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, options)

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"beta1": beta1, "beta2": beta2}

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
