"""Sophia-H: clipped momentum over Hutchinson's estimate of the Hessian's diagonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._hessian import HessianOptimizer
from momentum.optim._options import CommonOptions, Group, check_choice, check_number

PROBES = dict.fromkeys(("gaussian", "rademacher"))


class SophiaH(HessianOptimizer):
    r"""Momentum divided by a running estimate of the Hessian's diagonal, clipped entry by entry.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, \operatorname{clip} \left(
        \frac{m_t}{\max(\gamma h, \epsilon)}, -\rho, \rho \right)

    and every ``update_interval`` steps :math:`h = \beta_2 h + (1 - \beta_2) \, z \odot H z`, with :math:`H` the Hessian of a
    batch's loss and :math:`z` random with independent entries of variance 1.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-4.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.96, 0.99).
    rho
        :math:`\rho \ge 0`, the largest entry of an update before the learning rate. Default: 1.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.1.
    gamma
        :math:`\gamma \ge 0`: the larger, the fewer entries are clipped. Default: 0.01.
    eps
        :math:`\epsilon \ge 0`; a negative estimate counts as this. Default: 1e-12.
    update_interval
        Steps between updates of :math:`h`, for :meth:`hessian_due`. Default: 10.
    probe
        Distribution of :math:`z`: ``"gaussian"``, or ``"rademacher"``, whose estimate has the least variance.
        Default: ``"gaussian"``.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training" (2023), algorithms 1
    and 3. There is no published code of this variant, and no test against it.

    Examples
    --------
    >>> import torch, momentum
    >>> model, x, y = torch.nn.Linear(2, 3), torch.randn(8, 2), torch.arange(8) % 3
    >>> optimizer = momentum.optim.SophiaH(model.parameters())
    >>> cross_entropy = torch.nn.functional.cross_entropy
    >>> for step in range(1, 21):
    ...     optimizer.zero_grad()
    ...     cross_entropy(model(x), y).backward()
    ...     optimizer.step()
    ...     if optimizer.hessian_due(step):
    ...         optimizer.update_hessian(cross_entropy(model(x), y))
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float | Tensor, float | Tensor] = (0.96, 0.99),
        rho: float = 1.0,
        weight_decay: float | Tensor = 0.1,
        *,
        gamma: float = 0.01,
        eps: float = 1e-12,
        update_interval: int = 10,
        probe: str = "gaussian",
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "weight_decay": weight_decay,
            "gamma": gamma,
            "eps": eps,
            "update_interval": update_interval,
            "probe": probe,
        }
        super().__init__(params, defaults, options)

    def update_hessian(self, loss: Tensor, generator: torch.Generator | None = None) -> None:
        """Average one of Hutchinson's estimates into :math:`h`, from the graph of ``loss``, which is freed.

        Parameters
        ----------
        loss
            A scalar that was computed from the parameters. Gradients in ``param.grad`` are neither read nor written.
        generator
            Source of :math:`z`, on the device of the parameters. Default: torch's.

        Raises
        ------
        RuntimeError
            When ``loss`` depends on no parameter.
        """
        entries = [entry for entry in self._entries(None) if entry.param.requires_grad]
        params = [entry.param for entry in entries]
        firsts = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
        used = [i for i, first in enumerate(firsts) if first is not None]
        if not used:
            raise RuntimeError("SophiaH.update_hessian: the loss depends on no parameter of this optimizer")
        entries, params = [entries[i] for i in used], [params[i] for i in used]
        probes = [self._draw(self.param_groups[entry.group]["probe"], entry.param, generator) for entry in entries]
        along = torch.stack([(firsts[i] * z).sum() for i, z in zip(used, probes, strict=True)]).sum()
        if along.requires_grad:
            products = torch.autograd.grad(along, params, allow_unused=True, materialize_grads=True)
        else:  # the loss is linear in the parameters
            products = tuple(torch.zeros_like(param) for param in params)
        with torch.no_grad():
            self._fill(entries)
            self._average(entries, products, probes, None)

    @staticmethod
    def _draw(probe: str, param: Tensor, generator: torch.Generator | None) -> Tensor:
        draw = torch.empty_like(param, requires_grad=False)
        if probe == "gaussian":
            return draw.normal_(generator=generator)
        return draw.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)

    def _hypers(self, group: Group) -> dict[str, Any]:
        scale, clip = float(group["gamma"]), float(group["rho"])
        return {"beta1": group["betas"][0], "scale": scale, "clip": clip, "eps": group["eps"], "floor": True}

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_number("rho", group["rho"])
        check_number("gamma", group["gamma"])
        check_choice("probe", group["probe"], PROBES)
