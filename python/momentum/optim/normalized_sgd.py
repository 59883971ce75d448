"""SGD with normalised momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_choice, check_flag, check_number
from momentum.optim._rule import Reduction, Rule

SCOPES = {
    scope: Rule("normalized", ("exp_avg",), reductions=(Reduction("sum", shared=scope == "all"),), counts=False)
    for scope in ("tensor", "all")
}


class NormalizedSGD(FusedOptimizer):
    r"""SGD whose momentum is divided by its norm, of each tensor or of all: every step has the length :math:`\eta`.

    .. math::
        m_t &= \mu m_{t-1} + (1 - \mu) g_t \\
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, \frac{d_t}{\max(\|d_t\|_2, \epsilon)}

    with :math:`d_t = m_t` or, with Nesterov momentum, :math:`\mu m_t + (1 - \mu) g_t`. Without momentum :math:`d_t = g_t`, and
    no state is kept.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, the length of a step, a number or a one-element tensor. Default: 1e-2.
    momentum
        :math:`\mu \in [0, 1)`. Default: 0.9.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    nesterov
        Look ahead along the momentum. Default: False.
    scope
        Whose norm a tensor's :math:`d_t` is divided by: its own (``"tensor"``), or that of all tensors of the step in groups
        that say so (``"all"``), which then move by :math:`\eta` together. Default: ``"tensor"``.
    eps
        :math:`\epsilon \ge 0`: a smaller norm counts as this, so that a zero gradient moves nothing. Default: 1e-12.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Cutkosky and Mehta, "Momentum Improves Normalized SGD" (2020), algorithm 1, which is ``scope="all"``; the upper level of
    BO-REP, bilevel optimisation under unbounded smoothness, steps so as well. A norm over all tensors covers every group,
    device and process, and is added up on the device; :meth:`step_param`, which sees one tensor, refuses it.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.NormalizedSGD(model.parameters(), lr=0.1)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = SCOPES["tensor"]

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.9,
        weight_decay: float | Tensor = 0.0,
        *,
        nesterov: bool = False,
        scope: str = "tensor",
        eps: float = 1e-12,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "scope": scope,
            "eps": eps,
        }
        super().__init__(params, defaults, options)

    def _rule_of(self, group: Group) -> Rule:
        return SCOPES[group["scope"]]

    @_disable_dynamo
    def _advance(self, param: Tensor | None) -> None:
        if param is not None and any(group["scope"] == "all" for group in self.param_groups):
            raise RuntimeError("NormalizedSGD: step_param() cannot divide by the norm of all tensors: scope must be 'tensor'")
        super()._advance(param)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return self._rule.states if group["momentum"] > 0 else ()

    def _hypers(self, group: Group) -> dict[str, Any]:
        momentum = group["momentum"]
        return {"momentum": momentum, "eps": group["eps"], "mix": momentum if group["nesterov"] else 1.0}

    def _check_group(self, group: Group) -> None:
        check_number("momentum", group["momentum"], 0.0, 1.0, below=True)
        check_number("eps", group["eps"])
        check_flag("nesterov", group["nesterov"])
        check_choice("scope", group["scope"], SCOPES)
        if isinstance(group["momentum"], Tensor):
            raise TypeError("momentum must be a number: whether it is 0 decides what is kept")
