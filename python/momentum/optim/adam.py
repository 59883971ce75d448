"""Adam and AMSGrad."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_flag, check_number
from momentum.optim._rule import Rule
from momentum.optim._torch_flags import check_torch_flags, torch_flags


class Adam(FusedOptimizer):
    r"""Adam, with the signature and the state of :class:`torch.optim.Adam`.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        p_t &= p_{t-1} - \eta \, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`g_t` containing :math:`\lambda p_{t-1}` (weight decay mode ``"l2"``), and :math:`\max_{s \le t} v_s` in the
    place of :math:`v_t` under ``amsgrad``.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, outside the root. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    amsgrad
        Keep the maximum of the second moment (state ``max_exp_avg_sq``). Default: False.
    foreach, capturable, differentiable, fused
        For compatibility. The step is always fused and can always be captured: ``foreach=True``, ``differentiable=True``
        and ``fused=False`` are refused.
    decoupled_weight_decay
        torch's name for ``weight_decay_mode="decoupled"``. Default: False.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"l2"`` by default.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1; AMSGrad: Reddi, Kale and Kumar, "On the
    Convergence of Adam and Beyond" (2018), with the maximum of the uncorrected second moment, as in torch. States are
    float32 by default whatever the parameter's dtype, where torch uses the parameter's.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.Adam(model.parameters(), lr=1e-2)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("adam", ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"))

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        check_flag("decoupled_weight_decay", decoupled_weight_decay)
        mode = options.setdefault("weight_decay_mode", "decoupled" if decoupled_weight_decay else "l2")
        if decoupled_weight_decay and mode == "l2":
            raise ValueError("decoupled_weight_decay=True contradicts weight_decay_mode='l2'")
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            **torch_flags(foreach=foreach, differentiable=differentiable, fused=fused),
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return self._rule.states if group["amsgrad"] else self._rule.states[:2]

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"]}

    def _check_group(self, group: Group) -> None:
        check_torch_flags(group)
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        check_flag("amsgrad", group["amsgrad"])
        check_flag("capturable", group["capturable"])

    def _torch_options(self, group: Group) -> dict[str, Any]:
        return {"decoupled_weight_decay": group["weight_decay_mode"] != "l2"}

    def adopt_torch_options(self, group: Group, own: Group) -> None:
        """Turn torch's ``decoupled_weight_decay`` into a mode; one that torch does not know stays."""
        decoupled = group.pop("decoupled_weight_decay", None)
        if decoupled is not None and "weight_decay_mode" not in group and decoupled != (own["weight_decay_mode"] != "l2"):
            group["weight_decay_mode"] = "decoupled" if decoupled else "l2"
