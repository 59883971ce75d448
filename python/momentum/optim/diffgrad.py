"""diffGrad."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_number
from momentum.optim._rule import Rule


class DiffGrad(FusedOptimizer):
    r"""Adam that moves less where the gradient changes little from step to step.

    .. math::
        p_t = p_{t-1} - \eta \, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \cdot
        \frac{1}{1 + e^{-|g_{t-1} - g_t|}} \cdot \frac{m_t}{\sqrt{v_t} + \epsilon}

    with Adam's moments, of a gradient that contains :math:`\lambda p_{t-1}` (weight decay mode ``"l2"``), and :math:`g_0 = 0`.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, beside the uncorrected root. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"l2"`` by default.
        ``state_format={"previous_grad": torch.bfloat16}`` keeps the last gradient as exactly as bfloat16 gradients are.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks" (2020), and shivram1987/diffGrad
    ``diffGrad_v2.py``. The first version there kept a reference to the gradient, whose change was then 0.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.DiffGrad(model.parameters(), lr=1e-3)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("diffgrad", ("exp_avg", "exp_avg_sq", "previous_grad"))

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        options.setdefault("weight_decay_mode", "l2")
        defaults: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, options)

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"]}

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
