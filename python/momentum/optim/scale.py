"""SCALE: SGD normalised by row or column, with momentum for the last layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_choice, check_number
from momentum.optim._rule import Reduction, Rule

AXES = {"column": 0, "row": 1, None: -1}
NORMS = {"rms": 0, "l2": 1}

# Adam with eps beside the uncorrected root, as the official code steps one-dimensional parameters: SPAM's rule without its
# clipping and resets.
ADAM = Rule("spam", ("exp_avg", "exp_avg_sq"))
ADAM_HYPERS = {"threshold": 0.0, "reset_interval": 0, "warmup_steps": 0, "accumulation_steps": 0, "guard_zero_v": True}


class SCALE(FusedOptimizer):
    r"""SGD with each row or column of the gradient divided by its norm; matrices keep no state, except in the last layer.

    .. math::
        d_t = g_t \quad \text{or, with momentum,} \quad \mu d_{t-1} + (1 - \mu) g_t; \qquad
        p_t = (1 - \eta \lambda) \, p_{t-1} - \eta \frac{d_t}{\max(\|d_t\|, \epsilon)}

    where the norm is taken along each line of the matrix (dim 0 by the rest). :func:`scale_groups` sorts the parameters of a
    model into groups: rows for linear layers, columns for embeddings, rows with momentum for the last layer, and AdamW
    (``normalize=None``) for parameters with fewer than two dimensions.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups; usually what :func:`scale_groups` returns.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-4.
    momentum
        :math:`\mu \in [0, 1)`; 0 keeps no state. Default: 0, and 0.9 for the last layer in :func:`scale_groups`.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    normalize
        ``"row"``, ``"column"``, or None for AdamW. Default: ``"row"``.
    norm
        ``"rms"``, the root mean square of the official code, or ``"l2"``, the norm of the paper. Default: ``"rms"``.
    betas
        AdamW's, numbers or one-element tensors in [0, 1). Default: (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, the least norm; for AdamW beside the uncorrected root. Default: 1e-8.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range, or a parameter with fewer than two dimensions is to be normalised.

    Notes
    -----
    Glentis et al., "Minimalist Optimizer Design for LLM Pretraining" (2025), and
    OptimAI-Lab/Minimalist_LLM_Pretraining ``scale_optimizer.py``. What the paper calls a column is a row of
    ``nn.Linear.weight``.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 10))
    >>> optimizer = momentum.optim.SCALE(momentum.optim.scale_groups(model), lr=1e-3)
    >>> model(torch.arange(3)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        momentum: float = 0.0,
        weight_decay: float | Tensor = 0.0,
        *,
        normalize: str | None = "row",
        norm: str = "rms",
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "normalize": normalize,
            "norm": norm,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(params, defaults, options)

    def _rule_of(self, group: Group) -> Rule:
        if group["normalize"] is None:
            return ADAM
        reduction = Reduction("sum", 0 if group["normalize"] == "column" else 1, mean=group["norm"] == "rms")
        return Rule("scale", ("exp_avg",), reductions=(reduction,), counts=False)

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        if group["normalize"] is None:
            return ADAM.states
        return ("exp_avg",) if group["momentum"] > 0 else ()

    def _hypers(self, group: Group) -> dict[str, Any]:
        if group["normalize"] is None:
            beta1, beta2 = group["betas"]
            return {"beta1": beta1, "beta2": beta2, "eps": group["eps"], **ADAM_HYPERS}
        return {
            "momentum": group["momentum"],
            "eps": group["eps"],
            "axis": AXES[group["normalize"]],
            "l2": NORMS[group["norm"]] == 1,
        }

    def _check_group(self, group: Group) -> None:
        check_number("momentum", group["momentum"], 0.0, 1.0, below=True)
        check_choice("normalize", group["normalize"], AXES)
        check_choice("norm", group["norm"], NORMS)
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        params = (p[1] if isinstance(p, tuple) else p for p in group["params"])
        if group["normalize"] is not None and any(isinstance(p, Tensor) and p.ndim < 2 for p in params):
            raise ValueError(
                "a parameter with fewer than two dimensions has no rows or columns: put it in a group with normalize=None, "
                "or let scale_groups(model) make the groups"
            )


def scale_groups(
    model: nn.Module, *, momentum: float = 0.9, last: nn.Module | None = None, adam_lr: float | None = None
) -> list[Group]:
    """Sort the parameters of ``model`` into the groups of :class:`SCALE`.

    Parameters
    ----------
    model
        The model. A parameter that two modules share goes by the first of them.
    momentum
        Momentum of the last layer, in [0, 1). Default: 0.9.
    last
        The layer whose weight gets it. Default: the :class:`torch.nn.Linear` that was registered last.
    adam_lr
        Learning rate of the parameters with fewer than two dimensions. Default: that of the optimizer.

    Returns
    -------
    list of dict
        Parameter groups with their options and a ``"name"``, without the empty ones.
    """
    if last is None:
        last = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    own = set(map(id, last.parameters(recurse=False))) if last is not None else set()
    columns = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    groups: dict[str, Group] = {
        "row": {"normalize": "row", "momentum": 0.0},
        "column": {"normalize": "column", "momentum": 0.0},
        "last": {"normalize": "row", "momentum": momentum},
        "adamw": {"normalize": None} if adam_lr is None else {"normalize": None, "lr": adam_lr},
    }
    members: dict[str, list[Tensor]] = {name: [] for name in groups}
    for param in model.parameters():
        if param.ndim < 2:
            name = "adamw"
        elif id(param) in columns:
            name = "column"
        else:
            name = "last" if id(param) in own else "row"
        members[name].append(param)
    return [{"name": name, "params": members[name], **options} for name, options in groups.items() if members[name]]
