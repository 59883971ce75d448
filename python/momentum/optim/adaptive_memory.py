"""SGD and AdamW with adaptive memory in the place of a fixed momentum coefficient."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_number
from momentum.optim._rule import Reduction, Rule

RULE = Rule("adaptive_memory", ("memory", "exp_avg_sq"), reductions=(Reduction("sum", width=3),), non_negative=("exp_avg_sq",))


class AMSGD(FusedOptimizer):
    r"""SGD whose momentum coefficient is found anew at every step, tensor by tensor, from a model of two planes.

    .. math::
        d_t &= \frac{(\beta_t + \kappa) d_{t-1} + (1 - \beta_t) g_t}{1 + \kappa}, \qquad d_1 = g_1, \qquad
        p_t = (1 - \eta \lambda) \, p_{t-1} - \eta \, d_t \\
        \beta_t &= \operatorname{clip} \left( \frac{1 + \kappa}{2} \cdot
        \frac{\|g_t\|^2 - \|d_{t-1}\|^2}{\|g_t - d_{t-1}\|^2} + \frac{1 - \kappa}{2}, 0, 1 \right)

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-2.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    pull
        :math:`\kappa \ge 0`: how much the step is drawn towards the memory. Default: 0.1.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    After Topollai and Choromanska, "Adaptive Memory Momentum via a Model-Based Framework for Deep Learning Optimization" (2025,
    arXiv 2510.04988), of which the form of :math:`d_t` is known here and no code. :math:`\beta_t` is derived: it maximises the
    dual of a proximal step on the larger of the planes :math:`\langle g, y \rangle` and :math:`\langle d, y \rangle`,
    pulled towards :math:`-\eta d` by :math:`\kappa`. Not verified against the paper, and possibly different there: that both
    planes have the same height at the parameter, that the first memory is the gradient, the default of ``pull``, and that each
    tensor has a coefficient of its own.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.AMSGD(model.parameters(), lr=1e-2)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = RULE

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        weight_decay: float | Tensor = 0.0,
        *,
        pull: float = 0.1,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "pull": pull}, options)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return ("memory",)

    def _hypers(self, group: Group) -> dict[str, Any]:
        return {"pull": group["pull"]}

    def _check_group(self, group: Group) -> None:
        check_number("pull", group["pull"])


class AMAdamW(FusedOptimizer):
    r"""AdamW whose first moment is an adaptive memory.

    .. math::
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad P_t = \sqrt{v_t / (1 - \beta_2^t)} + \epsilon \\
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, d_t / P_t

    with :math:`d_t` as in :class:`AMSGD`, the squared norms there weighted by :math:`1 / P_t`.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    beta2
        :math:`\beta_2 \in [0, 1)`, a number or a one-element tensor. Default: 0.999.
    eps
        :math:`\epsilon \ge 0`. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 1e-2.
    pull
        :math:`\kappa \ge 0`: how much the step is drawn towards the memory. Default: 0.1.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    As for :class:`AMSGD`. Not verified in addition: that the memory, which starts at the first gradient, needs no correction of
    its bias.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.AMAdamW(model.parameters(), lr=1e-3)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = RULE

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        beta2: float | Tensor = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Tensor = 1e-2,
        *,
        pull: float = 0.1,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {"lr": lr, "beta2": beta2, "eps": eps, "weight_decay": weight_decay, "pull": pull}
        super().__init__(params, defaults, options)

    def _hypers(self, group: Group) -> dict[str, Any]:
        return {"pull": group["pull"], "beta2": group["beta2"], "eps": group["eps"]}

    def _check_group(self, group: Group) -> None:
        check_number("pull", group["pull"])
        check_number("beta2", group["beta2"], 0.0, 1.0, below=True)
        check_number("eps", group["eps"])
