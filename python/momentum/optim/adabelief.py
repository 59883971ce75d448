"""AdaBelief."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_flag, check_number
from momentum.optim._rule import Rule


class AdaBelief(FusedOptimizer):
    r"""Adam whose second moment is that of the gradient's deviation from its average.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon \\
        p_t &= (1 - \eta \lambda) \, p_{t-1}
        - \eta \, \frac{m_t / (1 - \beta_1^t)}{\sqrt{s_t / (1 - \beta_2^t)} + \epsilon}

    With ``rectify``, as in RAdam, let :math:`R = 2 / (1 - \beta_2) - 1` and
    :math:`\rho_t = R - 2 t \beta_2^t / (1 - \beta_2^t)`. While :math:`\rho_t < 5` the update is
    :math:`m_t / (1 - \beta_1^t)`; then it is

    .. math::
        \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) R}{(R - 4)(R - 2) \rho_t}}
        \cdot \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \cdot \frac{m_t}{\sqrt{s_t} + \epsilon}

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`; 1e-8 where SGD is the better optimizer, says the authors' page. Default: 1e-16.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    amsgrad
        Use the largest :math:`s` so far; without effect on a rectified step. Default: False.
    rectify
        Whether to rectify. Default: True.
    degenerated_to_sgd
        Whether a step is made while :math:`\rho_t < 5`; the moments advance in any case. Default: True.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients" (2020), and
    juntang-zhuang/Adabelief-Optimizer, version 0.2.1, with its defaults. :math:`\epsilon` is part of the stored :math:`s`, to
    which it is added at every step: keep that state in float32. The published option ``fixed_decay`` is
    ``weight_decay_mode="lr_decoupled"`` while the learning rate is constant.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.AdaBelief(model.parameters(), lr=1e-3)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("adabelief", ("exp_avg", "exp_avg_var", "max_exp_avg_var"), non_negative=("exp_avg_var", "max_exp_avg_var"))

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float | Tensor = 0.0,
        amsgrad: bool = False,
        *,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "rectify": rectify,
            "degenerated_to_sgd": degenerated_to_sgd,
        }
        super().__init__(params, defaults, options)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return self._rule.states if group["amsgrad"] else self._rule.states[:2]

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "rectify": group["rectify"],
            "degenerated_to_sgd": group["degenerated_to_sgd"],
        }

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        for name in ("amsgrad", "rectify", "degenerated_to_sgd"):
            check_flag(name, group[name])
