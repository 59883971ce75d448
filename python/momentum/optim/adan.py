"""Adan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._norms import clipping_scale
from momentum.optim._options import SCALE, CommonOptions, Group, check_number
from momentum.optim._rule import Rule


class Adan(FusedOptimizer):
    r"""Adam with Nesterov's momentum, estimated from the change of the gradient.

    With :math:`d_t = g_t - g_{t-1}`, and :math:`d_1 = 0`,

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad z_t = \beta_2 z_{t-1} + (1 - \beta_2) d_t \\
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 d_t)^2 \\
        p_t &= \frac{1}{1 + \eta \lambda} \left( p_{t-1} - \eta \,
        \frac{m_t / (1 - \beta_1^t) + \beta_2 z_t / (1 - \beta_2^t)}{\sqrt{n_t / (1 - \beta_3^t)} + \epsilon} \right)

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2, \beta_3 \in [0, 1)`, numbers or one-element tensors; the paper's are one minus these.
        Default: (0.98, 0.92, 0.99).
    eps
        :math:`\epsilon \ge 0`. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    max_grad_norm
        Norm of all gradients together, in units of the unscaled gradient, beyond which they are scaled down to it; 0 turns
        clipping off. The first group's counts for all. It costs one more pass over the gradients, which are not written, and no
        synchronisation. Default: 0.
    no_prox
        Decay as in AdamW, ``weight_decay_mode="decoupled"``, not by the proximal step above. Default: False.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"prox"`` by default.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.
    RuntimeError
        By ``step_param`` with ``max_grad_norm``: one parameter does not know the norm of all.

    Notes
    -----
    Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models" (2022), and sail-sg/Adan
    ``adan.py``, its Python path: the published single-tensor CUDA kernel steps by another formula. Steps are counted per
    parameter, not per group. The last gradient is the state ``neg_pre_grad``, of opposite sign; it contains clipping.
    :meth:`restart` is the published ``restart_opt``.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.Adan(model.parameters(), lr=1e-3, weight_decay=0.02, max_grad_norm=1.0)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("adan", ("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"))

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor, float | Tensor] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.0,
        *,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        if not isinstance(no_prox, bool):
            raise TypeError(f"no_prox must be True or False, got {no_prox!r}")
        mode = options.setdefault("weight_decay_mode", "decoupled" if no_prox else "prox")
        if no_prox and mode == "prox":
            raise ValueError("no_prox=True contradicts weight_decay_mode='prox'")
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, defaults, options)

    @torch.no_grad()
    def restart(self) -> None:
        """Set all moments and step counts to zero; the next change of the gradient is taken as 0 again."""
        for state in self.state.values():
            state["step"].zero_()
            for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq"):
                state[name].zero_()
                if name + SCALE in state:  # a quantised zero
                    state[name + SCALE].zero_()

    @_disable_dynamo
    def _advance(self, param: Tensor | None) -> None:
        max_norm = self.param_groups[0]["max_grad_norm"] if self.param_groups else 0.0
        if max_norm == 0:
            super()._advance(param)
            return
        if param is not None:
            raise RuntimeError("Adan: step_param() cannot clip by the norm of all gradients: max_grad_norm must be 0")
        entries = self._entries(None)
        for entry in entries:
            self.check_tensors(entry.number, entry.param)
        grads = [entry.param.grad for entry in entries if entry.param.grad is not None]
        if not grads:
            return
        given: Tensor | None = getattr(self, "grad_scale", None)
        self.grad_scale = clipping_scale(grads, max_norm, self.defaults["eps"], given)
        try:
            super()._advance(None)
        finally:
            if given is None:
                del self.grad_scale
            else:
                self.grad_scale = given

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2, beta3 = group["betas"]
        return {"beta1": beta1, "beta2": beta2, "beta3": beta3, "eps": group["eps"]}

    def _check_group(self, group: Group) -> None:
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 3:
            raise ValueError(f"betas must be three numbers, got {betas!r}")
        for i, beta in enumerate(betas):
            check_number(f"betas[{i}]", beta, 0.0, 1.0, below=True)
        check_number("eps", group["eps"])
        check_number("max_grad_norm", group["max_grad_norm"])
