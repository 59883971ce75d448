"""Sophia-G: clipped momentum over the Gauss-Newton-Bartlett estimate of the Hessian's diagonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._hessian import HessianOptimizer
from momentum.optim._options import CommonOptions, Group, check_number


class SophiaG(HessianOptimizer):
    r"""Momentum divided by a running estimate of the Hessian's diagonal, clipped entry by entry.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, \operatorname{clip} \left(
        \frac{m_t}{\rho B h + \epsilon}, -1, 1 \right)

    and every ``update_interval`` steps, with :math:`\hat g` the gradient of the mean loss at labels drawn from the model,
    :math:`h = \beta_2 h + (1 - \beta_2) \hat g^2`. Until then :math:`h = 0`, and a step is the sign of the momentum.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-4.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.965, 0.99).
    rho
        :math:`\rho \ge 0`: the larger, the fewer entries are clipped. Default: 0.04.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.1.
    batch_size
        :math:`B`: over how many labels the loss of :meth:`update_hessian` is a mean, tokens for a language model.
        Default: 5120, as published; it should be yours.
    eps
        :math:`\epsilon \ge 0`. Default: 1e-15.
    update_interval
        Steps between updates of :math:`h`, for :meth:`hessian_due`. Default: 10.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training" (2023), algorithm 2, and
    Liuhong99/Sophia ``sophia.py``: there :math:`B` is an argument of ``step``, here an option of a group.

    Examples
    --------
    >>> import torch, momentum
    >>> model, x, y = torch.nn.Linear(2, 3), torch.randn(8, 2), torch.arange(8) % 3
    >>> optimizer = momentum.optim.SophiaG(model.parameters(), batch_size=8)
    >>> cross_entropy = torch.nn.functional.cross_entropy
    >>> for step in range(1, 21):
    ...     optimizer.zero_grad()
    ...     cross_entropy(model(x), y).backward()
    ...     optimizer.step()
    ...     if optimizer.hessian_due(step):
    ...         optimizer.zero_grad()
    ...         logits = model(x)
    ...         cross_entropy(logits, optimizer.sampled_labels(logits)).backward()
    ...         optimizer.update_hessian()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float | Tensor, float | Tensor] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float | Tensor = 0.1,
        *,
        batch_size: float = 5120,
        eps: float = 1e-15,
        update_interval: int = 10,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "weight_decay": weight_decay,
            "batch_size": batch_size,
            "eps": eps,
            "update_interval": update_interval,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    @torch.no_grad()
    def sampled_labels(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw labels from the model's own distribution.

        Parameters
        ----------
        logits
            Of shape (..., classes), any floating point dtype.
        generator
            Source of the draws, on the device of ``logits``. Default: torch's.

        Returns
        -------
        Tensor
            int64, of shape (...).
        """
        shares = logits.detach().float().softmax(-1)
        return torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1, generator=generator).reshape(shares.shape[:-1])

    @torch.no_grad()
    def update_hessian(self, grad_scale: Tensor | None = None) -> None:
        """Average the squares of ``param.grad`` into the estimate; parameters without a gradient are left alone.

        Parameters
        ----------
        grad_scale
            What the gradients were multiplied by, one number in a tensor. Default: None, as they are.
        """
        found = [(entry, entry.param.grad) for entry in self._entries(None) if entry.param.grad is not None]
        entries = [entry for entry, _ in found]
        self._fill(entries)
        self._average(entries, [grad for _, grad in found], None, grad_scale)

    def _hypers(self, group: Group) -> dict[str, Any]:
        scale = float(group["rho"]) * float(group["batch_size"])
        return {"beta1": group["betas"][0], "scale": scale, "clip": 1.0, "eps": group["eps"], "floor": False}

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_number("rho", group["rho"])
        check_number("batch_size", group["batch_size"])
