"""FRUGAL: a stateful step for some coordinates, a stateless one for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.enums import Rest, Units
from momentum.optim._options import (
    MOST_STEPS,
    CommonOptions,
    Group,
    check_betas,
    check_choice,
    check_flag,
    check_integer,
    check_number,
)
from momentum.optim._plan import stream_seed
from momentum.optim._rule import Rule
from momentum.optim._subset import SubsetOptimizer, SubsetRule

PROJECTORS = {"columns": Units.COLUMNS, "rows": Units.ROWS, "random": Units.ELEMENTS, "block": Units.ELEMENTS}
INACTIVE = {None: Rest.DECAY, "sign": Rest.SIGN, "sgd": Rest.GRADIENT}
ORDERS = dict.fromkeys(("random", "ascending", "descending", "mirror"))
DENSE = {
    "adam": Rule("adam", ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "lion": Rule("lion", ("exp_avg",)),
    "sgd": Rule("sgd", ("momentum_buffer",), counts=False),
}
KEPT = {"adam": ("exp_avg", "exp_avg_sq"), "lion": ("exp_avg",), "sgd": ("momentum_buffer",)}


class FRUGAL(SubsetOptimizer):
    r"""Adam, Lion or SGD with momentum for a part of each matrix, sign descent for the rest.

    Every ``update_gap`` steps another share ``density`` of the columns, rows, entries or whole tensors becomes active. With
    :math:`u_t` the update of the active rule, restarted with the choice, and :math:`s` the ``inactive_lr_scale``,

    .. math::
        p_t = (1 - \eta \lambda) p_{t-1} - \eta \begin{cases} u_t & \text{active} \\
        s \operatorname{sign}(g_t) & \text{otherwise} \end{cases}

    :func:`frugal_groups` sorts the parameters of a model into groups.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups; usually what :func:`frugal_groups` returns.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-3.
    betas
        Of Adam and Lion, numbers or one-element tensors in [0, 1). Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0` of Adam, beside the corrected root. Default: 1e-8.
    weight_decay
        :math:`\lambda \ge 0` of all entries, a number or a one-element tensor. Default: 0.01.
    projector
        What is chosen: ``"columns"`` or ``"rows"`` of each matrix (dim 0 by the rest), single entries (``"random"``), whole
        tensors of the group (``"block"``), or None: everything is active. Parameters with fewer than two dimensions are all
        active unless whole tensors are chosen. Default: ``"columns"``.
    density
        The active share, in [0, 1]; it counts when a parameter is first stepped. Default: 0.25.
    update_gap
        Steps between choices, at least 1. Default: 200.
    reset_statistics
        Whether states and the step count of the rule start anew with a choice. Otherwise entries that are active again keep
        their states, and the others start with zeros; only with ``projector="random"``. Default: True.
    active
        Rule of the active entries: ``"adam"``, ``"lion"`` or ``"sgd"``. Default: ``"adam"``.
    inactive
        What the others follow: the gradient's ``"sign"``, the gradient (``"sgd"``), or None: they are only decayed.
        Default: ``"sign"``.
    inactive_lr_scale
        :math:`s \ge 0`. Default: 1.
    momentum
        Of ``active="sgd"``, in [0, 1). Default: 0.9.
    block_order
        How ``"block"`` goes through the tensors of its group: ``"random"``, ``"ascending"``, ``"descending"``, or
        ``"mirror"``, from both ends, which needs an even number of active tensors. Default: ``"random"``.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range, or one of ``ema_decay``, ``compensation``, ``rounding``, ``orthograd``,
        ``state_format`` or ``cautious="rescaled"`` is set in a group with a projector.
    NotImplementedError
        When a parameter of such a group is a DTensor whose shards are not evenly spaced runs of the units that are chosen, such
        as the entries of one that is split along two dimensions neither of which is the first.
    RuntimeError
        When a parameter of such a group is float64, or when :meth:`step_param` is called for a parameter of a group whose
        projector is ``"block"``.

    Notes
    -----
    Zmushko et al., "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training" (2024), and
    fzmushko/FRUGAL. There as here the states of entries are ``density`` of the active rule's, beside a bit for each column, row
    or entry. The published code draws over whole tensors; here every 256 columns, rows or entries have the same share, drawn on
    the device in the pass of the step. Whole tensors are chosen by the host, which counts every call of ``step``, so that such
    a group must not be captured in a graph beyond one choice. Without ``reset_statistics`` the published code leaves old states
    to other columns. Projections by singular vectors are not offered. What is active does not depend on how a parameter is
    sharded: each process draws its part of the choice, without communication. The states of columns of a parameter that is
    sharded by rows, as FSDP does, are DTensors of the same shape as those of a whole one. Those of rows, entries and whole
    tensors, and of sharded columns, are saved as DTensors of the shape of the parameter, with zeros where it is inactive;
    see :meth:`state_dict`.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> optimizer = momentum.optim.FRUGAL(momentum.optim.frugal_groups(model), lr=1e-3, density=0.25)
    >>> model(torch.ones(4, 8)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 0.01,
        *,
        projector: str | None = "columns",
        density: float = 0.25,
        update_gap: int = 200,
        reset_statistics: bool = True,
        active: str = "adam",
        inactive: str | None = "sign",
        inactive_lr_scale: float = 1.0,
        momentum: float = 0.9,
        block_order: str = "random",
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "projector": projector,
            "density": density,
            "update_gap": update_gap,
            "reset_statistics": reset_statistics,
            "active": active,
            "inactive": inactive,
            "inactive_lr_scale": inactive_lr_scale,
            "momentum": momentum,
            "block_order": block_order,
            "block_step": 0,
        }
        super().__init__(params, defaults, options)

    def _rule_of(self, group: Group) -> Rule:
        active, projector = group["active"], group["projector"]
        if projector is None:
            return DENSE[active]
        return SubsetRule(f"{active}_subset", KEPT[active], axis=PROJECTORS[projector])

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        return KEPT[group["active"]]

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        hypers = {
            "adam": {"beta1": beta1, "beta2": beta2, "eps": group["eps"]},
            "lion": {"beta1": beta1, "beta2": beta2},
            "sgd": {"momentum": group["momentum"]},
        }[group["active"]]
        if group["projector"] is None:
            return hypers
        hypers |= {"rest": int(INACTIVE[group["inactive"]]), "rest_scale": group["inactive_lr_scale"]}
        if group["projector"] == "block":
            return hypers
        return hypers | {"interval": group["update_gap"], "phase": 1, "restart": group["reset_statistics"]}

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        check_choice("projector", group["projector"], {None: None, **PROJECTORS})
        check_number("density", group["density"], high=1.0)
        check_integer("update_gap", group["update_gap"], 1, MOST_STEPS)
        check_flag("reset_statistics", group["reset_statistics"])
        check_choice("active", group["active"], DENSE)
        check_choice("inactive", group["inactive"], INACTIVE)
        check_number("inactive_lr_scale", group["inactive_lr_scale"])
        check_number("momentum", group["momentum"], 0.0, 1.0, below=True)
        check_choice("block_order", group["block_order"], ORDERS)
        if group["projector"] is None:
            return
        self._check_subset_options(group)
        if not group["reset_statistics"] and group["projector"] != "random":
            raise ValueError(f"reset_statistics must be True where projector is {group['projector']!r}, got False")
        if group["projector"] == "block" and group["block_order"] == "mirror" and _active_count(group) % 2:
            raise ValueError(
                f"block_order='mirror' needs an even number of active tensors, got {_active_count(group)} of "
                f"{len(group['params'])} with density {group['density']}"
            )

    def _chosen(self, param: Tensor, group: Group, place: int) -> int:
        if group["projector"] != "block":
            return super()._chosen(param, group, place)
        return param.numel() if place in active_blocks(group) else 0

    def _advance(self, param: Tensor | None) -> None:
        groups = [group for group in self.param_groups if group["projector"] == "block"]
        if param is not None:
            if any(p is param for group in groups for p in group["params"]):
                raise RuntimeError("step_param: the tensors of a group with projector='block' are chosen for whole steps")
            groups = []
        for group in groups:
            if group["block_step"] % group["update_gap"] == 0:
                self._plans.clear()  # which hold the states
                for p in group["params"]:
                    self.state.pop(p, None)
            group["block_step"] += 1
        try:
            super()._advance(param)
        except BaseException:
            for group in groups:
                group["block_step"] -= 1
            raise


def _active_count(group: Group) -> int:
    return round(len(group["params"]) * float(group["density"]))


def active_blocks(group: Group) -> frozenset[int]:
    """Return which tensors of ``group`` are active at the step that it counted last, by their places."""
    blocks, active, order = len(group["params"]), _active_count(group), group["block_order"]
    period = max(group["block_step"] - 1, 0) // group["update_gap"]
    if order == "random":
        generator = torch.Generator().manual_seed(stream_seed(group["seed"], period))
        return frozenset(torch.randperm(blocks, generator=generator)[:active].tolist())
    if order == "mirror":
        ends = [i % max(blocks // 2, 1) for i in range(period * (active // 2), (period + 1) * (active // 2))]
        return frozenset([*ends, *(blocks - 1 - i for i in ends)])
    ascending = [i % blocks for i in range(period * active, (period + 1) * active)]
    return frozenset(ascending if order == "ascending" else [blocks - 1 - i for i in ascending])


def frugal_groups(model: nn.Module, *, last: nn.Module | None = None) -> list[Group]:
    """Sort the parameters of ``model`` into the groups of :class:`FRUGAL`.

    Parameters
    ----------
    model
        The model.
    last
        The layer that makes its output. Default: the :class:`torch.nn.Linear` that was registered last.

    Returns
    -------
    list of dict
        The weights of linear layers but the last, then the rest of the parameters with ``projector=None``, each with a
        ``"name"``, without an empty one.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    last = last if last is not None else linear[-1] if linear else None
    own = set(map(id, last.parameters(recurse=False))) if last is not None else set()
    projected = {id(module.weight) for module in linear} - own
    groups: list[Group] = [
        {"name": "projected", "params": [p for p in model.parameters() if id(p) in projected]},
        {"name": "plain", "params": [p for p in model.parameters() if id(p) not in projected], "projector": None},
    ]
    return [group for group in groups if group["params"]]
