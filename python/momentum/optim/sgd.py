"""SGD with momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_flag, check_number
from momentum.optim._rule import Rule
from momentum.optim._torch_flags import check_torch_flags, torch_flags


class SGD(FusedOptimizer):
    r"""SGD with heavy-ball or Nesterov momentum, with the signature and the state of :class:`torch.optim.SGD`.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \qquad b_1 = g_1 \\
        p_t &= p_{t-1} - \eta b_t \qquad \text{or, with Nesterov momentum,} \quad p_{t-1} - \eta (g_t + \mu b_t)

    with :math:`g_t` containing :math:`\lambda p_{t-1}` (weight decay mode ``"l2"``). Without momentum :math:`b_t = g_t`, and
    no buffer is kept.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    momentum
        :math:`\mu \ge 0`. Default: 0.
    dampening
        :math:`\tau`. Default: 0.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    nesterov
        Nesterov's variant; needs ``momentum > 0`` and ``dampening == 0``. Default: False.
    foreach, differentiable, fused
        For compatibility: ``foreach=True``, ``differentiable=True`` and ``fused=False`` are refused.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"l2"`` by default.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013), in torch's form: the
    learning rate multiplies the buffer and is not part of it. A buffer loaded from torch, which counts no steps, goes on as
    after its first step.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("sgd", ("momentum_buffer",), counts=False)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float | Tensor = 0.0,
        nesterov: bool = False,
        *,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        options.setdefault("weight_decay_mode", "l2")
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            **torch_flags(foreach=foreach, differentiable=differentiable, fused=fused),
        }
        super().__init__(params, defaults, options)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return self._rule.states if group["momentum"] != 0 else ()

    def _hypers(self, group: Group) -> dict[str, Any]:
        return {"momentum": group["momentum"], "dampening": group["dampening"], "nesterov": group["nesterov"]}

    def _check_group(self, group: Group) -> None:
        check_torch_flags(group)
        check_number("momentum", group["momentum"])
        check_number("dampening", group["dampening"], float("-inf"))
        check_flag("nesterov", group["nesterov"])
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov=True needs momentum > 0 and dampening == 0")
