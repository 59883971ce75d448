"""SGD-SaI: SGD with a learning rate per tensor that the first gradient decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim import _sharding
from momentum.optim._base import FusedOptimizer
from momentum.optim._launch import on_device
from momentum.optim._norms import signal_to_noise, tensor_sums
from momentum.optim._options import COMPAT, CommonOptions, Group, check_choice, check_number
from momentum.optim._plan import Entry
from momentum.optim._rule import Rule


class SGDSaI(FusedOptimizer):
    r"""SGD with momentum whose learning rate is scaled, tensor by tensor, by the signal-to-noise ratio of the first gradient.

    .. math::
        s &= \frac{\|g_1\|_2}{\sigma(g_1) + \epsilon}, \qquad b_1 = g_1, \qquad b_t = \mu b_{t-1} + (1 - \mu) g_t \\
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, s \, b_t

    with :math:`\sigma` the unbiased standard deviation of the elements of :math:`g_1`. A gradient of mean 0 has
    :math:`s \approx \sqrt{N}` for :math:`N` elements, one whose elements are nearly equal a very large :math:`s`.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-2.
    momentum
        :math:`\mu \in [0, 1)`. Default: 0.9.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 1e-2.
    eps
        :math:`\epsilon \ge 0`. Default: 1e-8.
    compat
        ``"intended"``: :math:`s = 1` where the first gradient tells nothing, which is that of one element and a zero one.
        ``"official"``: there :math:`s = |g_1| / \epsilon`, which is huge, and 0, so that the tensor never moves.
        Default: ``"intended"``.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Xu et al., "No More Adam: Learning Rate Scaling at Initialization is All You Need" (2024), and
    AnonymousAlethiometer/SGD_SaI, version 1.0.3, where a parameter without a gradient at the first step is an error later;
    here each is measured at its own first step. :math:`s` is the state ``scalars``, measured from the gradient without L2
    decay, by two sums of one pass each; steps after the first do not measure, unless a ``GradScaler`` may have skipped them.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.SGDSaI(model.parameters(), lr=1e-3)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = Rule("sgd_sai", ("momentum_buffer",), scalars=1)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.9,
        weight_decay: float | Tensor = 1e-2,
        *,
        eps: float = 1e-8,
        compat: str = "intended",
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eps": eps,
            "compat": compat,
        }
        super().__init__(params, defaults, options)

    @_disable_dynamo
    def _advance(self, param: Tensor | None) -> None:
        scaled = getattr(self, "found_inf", None) is not None
        found = [entry for entry in self._entries(param) if entry.param.grad is not None]
        entries = [entry for entry in found if scaled or "scalars" not in self.state.get(entry.param, {})]
        new = [entry.param for entry in entries if not self.state.get(entry.param)]
        try:
            self._measure(entries)
            super()._advance(param)
        except BaseException:
            for p in new:
                self.state.pop(p, None)
            raise

    def _measure(self, entries: list[Entry]) -> None:
        """Set the ratios of tensors that have made no step."""
        for device in {entry.param.device: None for entry in entries}:
            members = [entry for entry in entries if entry.param.device == device]
            for entry in members:
                self.check_tensors(entry.number, entry.param)
            groups = [self.param_groups[entry.group] for entry in members]
            eps = torch.tensor([float(group["eps"]) for group in groups], dtype=torch.float64, device=device)
            official = torch.tensor([COMPAT[group["compat"]] for group in groups], device=device)
            ratios = self._ratios([entry.param for entry in members], eps, official)
            skipped = getattr(self, "found_inf", None)
            for entry, ratio in zip(members, ratios.float().unbind(), strict=True):
                state = self.state[entry.param]
                if "scalars" not in state:
                    state["scalars"] = torch.zeros(1, device=device)
                if skipped is None:
                    state["scalars"].copy_(ratio)
                else:
                    first = _sharding.local(state.get("step", torch.zeros((), device=device))) == 0
                    fits = first & (on_device(skipped, device) == 0)
                    state["scalars"].copy_(torch.where(fits, ratio, state["scalars"]))

    def _ratios(self, params: list[Tensor], eps: Tensor, official: Tensor) -> Tensor:
        grads = [param.grad for param in params if param.grad is not None]
        device = eps.device
        count = torch.tensor([float(param.numel()) for param in params], dtype=torch.float64, device=device)
        scale = getattr(self, "grad_scale", None)
        unscale = 1.0 if scale is None else on_device(scale, device).double()
        total, squares = tensor_sums(grads, device)
        ratios = signal_to_noise(total / unscale, squares / unscale**2, count, eps)
        silent = ((count <= 1) | (squares == 0)) & ~official
        return torch.where(silent, 1.0, ratios)

    def _restarted_scalars(self, state: dict[str, Any]) -> list[Tensor]:
        state.pop("scalars", None)  # measured anew at the next step
        return []

    def _hypers(self, group: Group) -> dict[str, Any]:
        return {"momentum": group["momentum"]}

    def _check_group(self, group: Group) -> None:
        check_number("momentum", group["momentum"], 0.0, 1.0, below=True)
        check_number("eps", group["eps"])
        check_choice("compat", group["compat"], COMPAT)
