"""SGDP: SGD that leaves the norm of normalised weights alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_flag, check_number, check_projection
from momentum.optim._rule import PROJECTION, Rule


class SGDP(FusedOptimizer):
    r"""SGD with momentum whose update loses its component along the weights where these are followed by a normalisation.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \qquad u_t = b_t \quad \text{or, with Nesterov momentum,} \quad g_t + \mu b_t \\
        p_t &= \left(1 - \frac{\eta \lambda \rho_t}{1 - \mu}\right) p_{t-1} - \eta
        \left( u_t - q_t \langle q_t, u_t \rangle \right), \qquad q_t = \frac{p_{t-1}}{\|p_{t-1}\| + \epsilon}

    When the component is taken off, of which rows, and what :math:`\rho_t` is, is as for :class:`AdamP`.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-2.
    momentum
        :math:`\mu \in [0, 1)`; 0 keeps no buffer. Default: 0.
    dampening
        :math:`\tau`. Default: 0.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    nesterov
        Nesterov's variant. Default: False.
    eps
        :math:`\epsilon \ge 0`, beside the norms. Default: 1e-8.
    delta
        :math:`\delta \ge 0`: how far from perpendicular a gradient may be; 0 turns the projection off. Default: 0.1.
    wd_ratio
        :math:`\rho \ge 0`: what weight decay is multiplied by where the update is projected. With
        ``weight_decay_mode="l2"`` decay is part of the gradient and multiplied by neither this nor :math:`1 / (1 - \mu)`.
        Default: 0.1.
    project_momentum
        Keep the projected update as the new buffer, as the published code does without Nesterov momentum: there the two are one
        tensor. Default: False, as in the paper.
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
    Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights" (2021), algorithm 1, and
    clovaai/AdamP ``adamp/sgdp.py``.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.SGDP(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("sgdp", ("momentum_buffer",), reductions=PROJECTION, counts=False)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float | Tensor = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        project_momentum: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eps": eps,
            "delta": delta,
            "wd_ratio": wd_ratio,
            "project_momentum": project_momentum,
        }
        super().__init__(params, defaults, options)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return self._rule.states if group["momentum"] > 0 else ()

    def _hypers(self, group: Group) -> dict[str, Any]:
        names = ("momentum", "dampening", "nesterov", "eps", "delta", "wd_ratio", "project_momentum")
        return {name: group[name] for name in names}

    def _check_group(self, group: Group) -> None:
        check_number("momentum", group["momentum"], 0.0, 1.0, below=True)
        if isinstance(group["momentum"], Tensor):
            raise TypeError("momentum must be a number: whether it is 0 decides what is kept")
        check_number("dampening", group["dampening"], float("-inf"))
        check_projection(group)
        check_flag("project_momentum", group["project_momentum"])
        if group["project_momentum"] and group["nesterov"]:
            raise ValueError("project_momentum=True has no effect with nesterov=True, whose update is not the buffer")
