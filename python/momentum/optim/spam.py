"""SPAM: Adam with momentum reset and spike-aware clipping, with dense or sparse momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._options import (
    COMPAT,
    MOST_STEPS,
    CommonOptions,
    Group,
    check_betas,
    check_choice,
    check_flag,
    check_integer,
    check_number,
)
from momentum.optim._rule import Rule
from momentum.optim._subset import SubsetOptimizer, SubsetRule

DENSE = Rule("spam", ("exp_avg", "exp_avg_sq"))


class SPAM(SubsetOptimizer):
    r"""Adam with momentum reset and spike-aware clipping, with dense or sparse momentum.

    Every ``reset_interval`` steps both moments are set to zero before they are used, and the update is scaled up again along a
    cosine for ``warmup_steps`` steps. An entry with :math:`g^2 > \theta v_{t-1}` becomes
    :math:`\operatorname{sign}(g) \sqrt{\theta v_{t-1}}`; clipping starts after ``accumulation_steps`` steps, and pauses for as
    many after a reset. Then, with Adam's moments and :math:`w` the warm-up factor,

    .. math::
        p_t = (1 - \eta \lambda) \left( p_{t-1} - w \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{m_t}{\sqrt{v_t} + \epsilon} \right)

    The step count is not reset, so nothing is bias-corrected again.

    With ``density`` below 1 only that share of a parameter's entries has moments and is stepped, and decayed; the others stay
    as they are until another choice is drawn, at every reset. States are then ``8 density + 1/8`` bytes per parameter.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers or one-element tensors. Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, beside the uncorrected root. Default: 1e-6.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    threshold
        :math:`\theta \ge 0`; 0 turns clipping off. Default: 5000.
    reset_interval
        Steps between resets (:math:`\Delta T`); 0 turns them off. Default: 500.
    warmup_steps
        Length of the warm-up after a reset. Default: 150.
    accumulation_steps
        Steps without clipping at the start and after a reset. Default: 20.
    density
        Share of the entries that have moments, in [0, 1]; per group, for parameters with at least two dimensions: the others
        keep all of theirs. It counts when a parameter is first stepped. Default: 1.
    compat
        ``"official"`` follows the published code where it differs from the paper's intent: an entry whose :math:`v` is exactly
        0 is clipped to 0, and so never moves until the next reset; with a density below 1 nothing is decayed.
        Default: ``"intended"``.
    guard_zero_v
        Whether such an entry is left unclipped. Default: None, what ``compat`` says.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"decoupled_after"`` by default.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range, or one of ``ema_decay``, ``compensation``, ``rounding``, ``orthograd``,
        ``state_format`` or ``cautious="rescaled"`` is set beside a density below 1.
    NotImplementedError
        When a parameter is a DTensor, the density of its group below 1, and a shard no contiguous tensor, or split along two
        dimensions neither of which is the first.
    RuntimeError
        When a parameter is float64 and the density of its group below 1.

    Notes
    -----
    Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training" (2025), and TianjinYellow/SPAM-Optimizer
    ``galore_torch/SPAM.py``. The published code counts steps per optimizer and clips ``param.grad`` in place; here they are
    counted per parameter, and gradients are not written. Of sparse momentum it chooses a fixed number of entries at first and
    each with the given probability later, so that its states change their size; here ``int(density * numel)`` are chosen, the
    same share of every 256, and drawn on the device in the pass of the step: one launch, which a graph can capture. The choice
    does not depend on how a parameter is sharded: each process draws its part of it, without communication. Sharded states of
    chosen entries are saved as DTensors of the shape of the parameter, with zeros elsewhere; see :meth:`state_dict`.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.SPAM(model.parameters(), lr=1e-3, reset_interval=200)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    _rule = DENSE

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float | Tensor = 0.0,
        *,
        threshold: float = 5000.0,
        reset_interval: int = 500,
        warmup_steps: int = 150,
        accumulation_steps: int = 20,
        density: float = 1.0,
        compat: str = "intended",
        guard_zero_v: bool | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        options.setdefault("weight_decay_mode", "decoupled_after")
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "threshold": threshold,
            "reset_interval": reset_interval,
            "warmup_steps": warmup_steps,
            "accumulation_steps": accumulation_steps,
            "density": density,
            "compat": compat,
            "guard_zero_v": guard_zero_v,
        }
        super().__init__(params, defaults, options)

    def _rule_of(self, group: Group) -> Rule:
        if group["density"] == 1:
            return DENSE
        return SubsetRule("spam_subset", DENSE.states, decays=not COMPAT[group["compat"]])

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        guard = group["guard_zero_v"]
        draws = {} if group["density"] == 1 else {"interval": group["reset_interval"]}
        return draws | {
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "threshold": group["threshold"],
            "reset_interval": group["reset_interval"],
            "warmup_steps": group["warmup_steps"],
            "accumulation_steps": group["accumulation_steps"],
            "guard_zero_v": not COMPAT[group["compat"]] if guard is None else guard,
        }

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        check_number("threshold", group["threshold"])
        for name in ("reset_interval", "warmup_steps", "accumulation_steps"):
            check_integer(name, group[name], high=MOST_STEPS)
        check_choice("compat", group["compat"], COMPAT)
        check_number("density", group["density"], high=1.0)
        if group["density"] != 1:
            self._check_subset_options(group)
        if group["guard_zero_v"] is not None:
            check_flag("guard_zero_v", group["guard_zero_v"])
